mod check;
mod cost;
mod goldens;
mod hostile;
mod infer;
