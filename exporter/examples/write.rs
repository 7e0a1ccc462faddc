//! `write OUT.onnx MODEL TARGET HxW [OUTPUT] [batch|f16|opset]…`
use emo_exporter::models::Model;
use emo_exporter::profile::Profile;
use emo_exporter::target::{Batch, Output, Target};
use emo_exporter::weights::Spec;
fn main() {
    // lines: OUT MODEL TARGET HxW flags…
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let w: Vec<&str> = line.split_whitespace().collect();
        let model = Model::named(w[1]).unwrap();
        let mut t = model.target(Profile::named(w[2]).unwrap());
        if w[3] != "-" {
            let (h, x) = w[3].split_once('x').unwrap();
            t.size = (h.parse().unwrap(), x.parse().unwrap());
        }
        for flag in &w[4..] {
            match *flag {
                "dynamic" => t.batch = Batch::Dynamic,
                "f16" => t.dtype = emo_proto::tensor_proto::DataType::Float16,
                o if o.starts_with('o') && o[1..].parse::<i64>().is_ok() => {
                    t.opset = emo_exporter::profile::Opset::version(o[1..].parse().unwrap()).unwrap()
                }
                o if o.starts_with('b') && o[1..].parse::<usize>().is_ok() => {
                    t.batch = Batch::Fixed(o[1..].parse().unwrap())
                }
                o => t.output = Some(Output::ALL.into_iter().find(|x| x.name() == o).unwrap()),
            }
        }
        let _: Target = t;
        match emo_exporter::export(model, &t, &Spec::Formula(0)) {
            Ok(e) => {
                std::fs::write(w[0], &e.bytes).unwrap();
                println!("ok {}", w[0]);
            }
            Err(e) => println!("refused {}: {e}", w[0]),
        }
    }
}
