use emo_verifier::runtime::*; use std::path::Path;
fn main(){
  let args: Vec<String> = std::env::args().collect();
  silence_guarded_panics();
  let f=emo_proto::file::open(Path::new(&args[1])).unwrap();
  let inputs: Vec<(String,Vec<usize>)> = args[2..].iter().map(|a|{let (n,s)=a.rsplit_once('=').unwrap(); (n.to_owned(), s.split('x').filter(|s|!s.is_empty()).map(|d|d.parse().unwrap()).collect())}).collect();
  let t=std::time::Instant::now();
  let c = match Concrete::new(&f,&inputs){Ok(c)=>c,Err(e)=>{println!("{e}");return}};
  println!("concrete {:?}", t.elapsed());
  let n = c.cut(&[],&[],Form::Plain).unwrap().model.graph.unwrap();
  let mut ops: std::collections::BTreeMap<String,usize>=Default::default(); for x in &n.node { *ops.entry(x.op_type().to_owned()).or_default()+=1; }
  println!("{} of {}: {ops:?}", n.node.len(), f.model.graph.as_ref().unwrap().node.len());
  let x: Vec<ndarray::ArrayD<f32>> = inputs.iter().map(|(_,s)| ndarray::ArrayD::from_shape_vec(s.clone(), emo_exporter::weights::formula::input(s,0).iter().map(|v| if std::env::var("INT").is_ok() {(v.abs()*7.0).floor()} else {*v}).collect()).unwrap()).collect();
  let mut all=vec![];
  for e in ENGINES { let rt=(e.open)(&Options{threads:Some(1),ort_library:None}).unwrap(); let t=std::time::Instant::now();
    match rt.ready(&c,&inputs.iter().map(|i|i.0.clone()).collect::<Vec<_>>(),&[]).and_then(|mut s| s.run(&x)) { Ok(o)=>{println!("{} {:?} {:?}", e.name, t.elapsed(), o.iter().map(|o|o.shape().to_vec()).collect::<Vec<_>>()); all.push(o);} Err(e)=>println!("{} {}", rt.name(), e.to_string().chars().take(400).collect::<String>()) } }
  if all.len()==2 { for (a,b) in all[0].iter().zip(&all[1]) { let m=b.iter().fold(0f32,|m,x|m.max(x.abs())); let d=if a.shape()==b.shape() {(a-b).iter().fold(0f32,|m,x|m.max(x.abs()))} else {f32::NAN}; println!("max diff {d:e} of {m}"); } }
}
