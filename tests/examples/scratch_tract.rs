use emo_tests::golden::*; use emo_verifier::{compare::*, runtime::*}; use emo_exporter::{profile::Profile, weights::Spec, models::emo::Request};
fn main(){
  let g=Golden::load("emo_1m_224x224_b1"); let x=g.input().into_dyn(); let shape=x.shape().to_vec();
  for f in std::fs::read_dir("/work/shared/third_party").unwrap() { let p=f.unwrap().path(); if p.extension().is_none_or(|e|e!="onnx"){continue}
    let b=std::fs::read(&p).unwrap(); let t=std::time::Instant::now();
    let m=emo_proto::file::open(&p).unwrap().model; let name=m.graph.unwrap().input[0].name.clone().unwrap();
    match Tract.prepare(&b,&[(name,shape.clone())],&[]).and_then(|mut s|{ let p=t.elapsed(); s.run(std::slice::from_ref(&x)).map(|o|(p,o))}) { Ok((dt,o))=>{ let v:Vec<f64>=o[0].iter().map(|&x|x.into()).collect(); println!("{p:?} {dt:?} {:?}",g.check_logits(&v,o[0].shape(),&FLOAT32)) } Err(e)=>println!("{p:?} {}", e.to_string().chars().take(300).collect::<String>()) } }
  for prof in ["reference","portable"] { let r=Request::new(g.variant(),Profile::named(prof).unwrap()); let e=emo_exporter::export(&r,&Spec::Formula(0)).unwrap();
    let i=e.graph.inputs.clone(); let _=i; let mut s=Tract.prepare(&e.bytes,&[("input".into(),shape.clone())],&[]).unwrap(); let o=s.run(std::slice::from_ref(&x)).unwrap(); let v:Vec<f64>=o[0].iter().map(|&x|x.into()).collect(); println!("{prof} {:?}",g.check_logits(&v,o[0].shape(),&FLOAT32)); }
}
