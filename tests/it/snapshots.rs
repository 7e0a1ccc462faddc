//! What people see: every help text and every format of every report, as files that a test writes again
//! (`TRYCMD=overwrite`).

use std::path::Path;

use crate::command::EMO;

#[test]
fn what_people_see_is_held() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/cmd/*.trycmd");
    trycmd::TestCases::new().register_bin("emo", Path::new(EMO)).env("COLUMNS", "80").case(cases);
}
