//! What the unfolded exports cost is what was published, to the digit, under every convention.

use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_tests::Order;
use emo_tests::fixture;
use emo_verifier::cost::Cost;
use emo_verifier::infer::infer;
use serde_json::Value;

#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn reference_exports_cost_what_was_published() {
    let tables = fixture("paper/tables.json");
    let tables: Value = serde_json::from_slice(&std::fs::read(tables).unwrap()).unwrap();
    for model in ["emo-1m", "emo-2m", "emo-5m", "emo-6m"] {
        let row = tables["models"].as_array().unwrap().iter();
        let row = row.into_iter().find(|row| row["name"].as_str().unwrap().to_lowercase() == model).unwrap();
        let request = Order::named(model, "reference");
        let export = request.export(&Spec::Formula(0)).unwrap();
        let file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();

        let inference = infer(&file.model, &Default::default());
        let mut cost = Cost::default();
        inference.nodes.iter().for_each(|node| cost += &node.cost);
        let exact = |figure: &str| row["ops"][figure].as_u64();
        let macs = exact("macs_conv_matmul_linear");
        assert_eq!(cost.macs.count(), macs, "{model}");
        assert_eq!(cost.flops.count(), macs.map(|macs| 2 * macs), "{model}");
        assert_eq!(cost.fvcore.count(), exact("fvcore_flops"), "{model}");
        assert_eq!(cost.mmcv.count(), exact("mmcv_flops"), "{model}");
    }
}
