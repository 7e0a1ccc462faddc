pub mod golden;
pub mod safetensors;
pub mod torch_save;
