//! The house rules, as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The Rust files below a folder, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The crates in their line: each may know only those before it.
const LINE: [&str; 6] = ["emo-proto", "emo-exporter", "emo-inspect", "emo-verifier", "emo-zoo", "emo-tests"];

/// The folders of those that ship.
const CRATES: [&str; 5] = ["proto", "exporter", "verifier/inspect", "verifier", "zoo"];

/// The rooms of a crate, from below, with the modules that each passes on.
type Rooms = &'static [(&'static str, &'static [&'static str])];

/// The crates that have rooms.
const ROOMS: [(&str, Rooms); 2] = [
    (
        "verifier/inspect/src",
        &[
            (
                "graph",
                &[
                    "graph", "cost", "fact", "hash", "infer", "ops", "real", "recent", "schema", "sym",
                    "typed",
                ],
            ),
            ("report", &["report", "finding"]),
            ("stats", &["stats", "audit", "budget", "diff", "memory", "plot"]),
            ("check", &["check"]),
            ("lint", &["lint"]),
        ],
    ),
    (
        "verifier/src",
        &[
            (
                // What the crate below passes on.
                "inspect",
                &[
                    "audit", "budget", "check", "cost", "diff", "fact", "finding", "infer", "lint", "memory",
                    "ops", "plot", "real", "report", "schema", "sym",
                ],
            ),
            (
                "run",
                &[
                    "run",
                    "against",
                    "boxes",
                    "compare",
                    "constants",
                    "data",
                    "earned",
                    "eval",
                    "image",
                    "lower",
                    "opinion",
                    "path",
                    "probe",
                    "range",
                    "runtime",
                    "tolerance",
                ],
            ),
            ("models", &["models", "identity", "reference", "truth", "verify", "written"]),
        ],
    ),
];

#[test]
fn rooms_know_only_those_below_them() {
    for (krate, rooms) in ROOMS {
        for (at, (room, _)) in rooms.iter().enumerate().filter(|(_, (room, _))| *room != "inspect") {
            let below: Vec<&str> =
                rooms[..=at].iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
            let files = sources(&root().join(krate).join(room));
            assert!(!files.is_empty(), "{krate}/{room} is empty");
            for (path, text) in files {
                let code = text.split("#[cfg(test)]").next().unwrap();
                for rest in code.split("crate::").skip(1) {
                    let module: String =
                        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let known = module.is_empty() || below.contains(&module.as_str());
                    assert!(known, "{}: crate::{module} is no room below {room}", path.display());
                }
            }
        }
    }
}

/// Files that are there for tests alone.
const TESTS: [&str; 3] = ["tests.rs", "testing.rs", "cases.rs"];

/// The modules below a folder of sources, by their paths: `run::eval::table`.
fn modules(src: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in
        sources(src).into_iter().filter(|(path, _)| !TESTS.iter().any(|test| path.ends_with(test)))
    {
        let place = path.strip_prefix(src).unwrap().with_extension("");
        let mut names: Vec<&str> = place.iter().map(|name| name.to_str().unwrap()).collect();
        let is_face = matches!(names.last(), Some(&("mod" | "lib" | "main")));
        if is_face {
            names.pop();
        }
        found.insert(names.join("::"), text.split("#[cfg(test)]").next().unwrap().to_owned());
    }
    found
}

/// What the imports of a module name, one path each, braces written out.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in text.split("\nuse ").skip(1) {
        let statement: String = statement.split(';').next().unwrap().split_whitespace().collect();
        spell(&statement, "", &mut found);
    }
    found
}

fn spell(tree: &str, before: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        found.push(format!("{before}{tree}"));
        return;
    };
    let inner = rest.strip_suffix('}').unwrap();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spell(&inner[start..at], &format!("{before}{head}"), found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The longest module that a path from `home` leads to.
fn module_of(path: &str, home: &str, rooms: Rooms, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut place: Vec<&str> = home.split("::").filter(|name| !name.is_empty()).collect();
    let mut names: Vec<&str> = path.split("::").collect();
    match names[0] {
        "crate" => place.clear(),
        "super" => {}
        _ => return None,
    }
    while names.first().is_some_and(|name| matches!(*name, "super" | "crate")) {
        if names.remove(0) == "super" {
            place.pop();
        }
    }
    // The root passes the rooms' modules on.
    let room = rooms.iter().find(|(room, passed)| *room != names[0] && passed.contains(&names[0]));
    if place.is_empty() {
        place.extend(room.map(|(room, _)| *room));
    }
    place.extend(names);
    (1..=place.len()).rev().map(|n| place[..n].join("::")).find(|path| modules.contains_key(path))
}

/// In every folder, what lies side by side is a line: no two modules need each other, not through others either.
#[test]
fn no_modules_close_a_circle() {
    let mut circles = Vec::new();
    for krate in CRATES {
        let src = format!("{krate}/src");
        let rooms = ROOMS.iter().find(|(home, _)| *home == src).map_or(&[][..], |(_, rooms)| *rooms);
        let modules = modules(&root().join(&src));
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (home, text) in &modules {
            let paths = imports(text);
            for target in paths.iter().filter_map(|path| module_of(path, home, rooms, &modules)) {
                let (from, to): (Vec<&str>, Vec<&str>) =
                    (home.split("::").collect(), target.split("::").collect());
                let Some(parts) = from.iter().zip(&to).position(|(a, b)| a != b) else { continue };
                let (from, to) = (from[..=parts].join("::"), to[..=parts].join("::"));
                arrows.entry(from).or_default().insert(to);
            }
        }
        // What needs nothing that is left is taken away, and what nothing needs, until only circles are left.
        loop {
            let before = arrows.len();
            let open: BTreeSet<String> = arrows.keys().cloned().collect();
            arrows.values_mut().for_each(|to| to.retain(|to| open.contains(to)));
            arrows.retain(|_, to| !to.is_empty());
            let needed: BTreeSet<String> = arrows.values().flatten().cloned().collect();
            arrows.retain(|from, _| needed.contains(from));
            if arrows.len() == before {
                break;
            }
        }
        circles.extend(arrows.into_iter().map(|(from, to)| format!("{src}: {from} needs {to:?}")));
    }
    assert!(circles.is_empty(), "modules that need each other:\n{}", circles.join("\n"));
}

/// What works on any file knows no model: not the exporter's rows either.
#[test]
fn what_runs_any_file_knows_no_model() {
    for (path, text) in sources(&root().join("verifier/src/run")) {
        let code = text.split("#[cfg(test)]").next().unwrap();
        assert!(!code.contains("emo_exporter::models"), "{} knows a model", path.display());
    }
}

#[test]
fn crates_know_only_those_before_them() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut seen: Vec<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    seen.sort_by_key(|name| LINE.iter().position(|l| l == name));
    assert_eq!(seen, LINE);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let place = LINE.iter().position(|l| *l == name).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let before = LINE[..place].contains(&dependency);
            assert!(before || !dependency.starts_with("emo-"), "{name} must not know {dependency}");
            let tract_allowed = place >= 3;
            assert!(tract_allowed || !dependency.starts_with("tract"), "{name} must not know {dependency}");
        }
    }
}

/// A crate that only one file may name.
const FENCES: [(&str, &str); 5] = [
    ("pytorch_reader", "exporter/src/weights/pth.rs"),
    ("tract_onnx", "verifier/src/run/runtime/tract.rs"),
    ("ort::session", "verifier/src/run/runtime/ort.rs"),
    ("indicatif", "zoo/src/cli/progress.rs"),
    ("comfy_table", "zoo/src/cli/table.rs"),
];

#[test]
fn foreign_engines_are_named_in_one_file() {
    for (name, home) in FENCES {
        let mut files = Vec::new();
        for krate in CRATES {
            let named = sources(&root().join(krate).join("src"));
            files.extend(named.into_iter().filter(|(_, text)| text.contains(name)).map(|(path, _)| path));
        }
        assert_eq!(files, [root().join(home)], "{name}");
    }
}

/// The exporter writes by the border alone; everything else is free of protobuf.
#[test]
fn only_the_border_names_messages() {
    for (path, text) in sources(&root().join("exporter/src")) {
        let border = path.ends_with("encode.rs");
        let named = ["ModelProto", "GraphProto", "NodeProto", "TensorProto", "AttributeProto"];
        let named = named.iter().find(|message| text.contains(*message));
        assert!(border || named.is_none(), "{} names {named:?}", path.display());
    }
}

#[test]
fn nothing_prints_outside_the_command_line() {
    for krate in CRATES {
        for (path, text) in sources(&root().join(krate).join("src")) {
            let command_line = path.starts_with(root().join("zoo/src/cli"));
            for macro_name in ["println!", "print!", "eprintln!", "eprint!", "dbg!"] {
                assert!(command_line || !text.contains(macro_name), "{}: {macro_name}", path.display());
            }
        }
    }
}

/// A library is used without a command line, whose flags it does not know; what asks for them in words is told with
/// them by `cli/advice.rs`.
#[test]
fn messages_of_libraries_name_no_flag() {
    // Whole commands; and advice of the judge, which has no words for it yet.
    let others = [
        "sha256sum --check",
        "emo export {}",
        " --window {side}",
        "try another --runtime",
        "give --weights to check them",
    ];
    let homes = ["proto/src", "exporter/src", "verifier/inspect/src", "verifier/src", "zoo/src/manifest"];
    for (path, text) in homes.iter().flat_map(|home| sources(&root().join(home))) {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let flag = line.match_indices("--").find(|(at, _)| {
                let before = line[..*at].chars().last();
                let after = line[at + 2..].chars().next();
                before.is_some_and(|c| " `\"(".contains(c)) && after.is_some_and(|c| c.is_ascii_lowercase())
            });
            let allowed = others.iter().any(|other| line.contains(other));
            assert!(flag.is_none() || allowed, "{}: {line}", path.display());
        }
    }
}

/// What only certain files may do, so that it is done in one way: a file that a user names may be a pipe, and a
/// stream may be closed.
const DUTIES: [(&str, &[&str]); 7] = [
    ("File::open(", &["proto/src/write.rs"]),
    ("File::options(", &["proto/src/file.rs"]),
    ("fs::read(", &[]),
    // Of the system's own.
    ("fs::read_to_string(", &["zoo/src/cli/bench.rs"]),
    ("Mmap::map", &["proto/src/map.rs"]),
    ("io::stdout(", &["zoo/src/cli/streams.rs"]),
    ("io::stderr(", &["zoo/src/cli/streams.rs"]),
];

#[test]
fn files_and_streams_are_opened_in_one_place() {
    for (what, homes) in DUTIES {
        for krate in CRATES {
            for (path, text) in sources(&root().join(krate).join("src")) {
                let code = text.split("#[cfg(test)]").next().unwrap();
                let home = homes.iter().any(|home| path == root().join(home));
                assert!(home || !code.contains(what), "{}: {what}", path.display());
            }
        }
    }
}

/// The judge's reference shares nothing with the builder but the model's row and the weights.
#[test]
fn the_reference_stands_alone() {
    // A row says which norm and which activation a stage has, by these names.
    let allowed = ["models", "weights", "layer::{Act, Norm as NormKind}", "layer::NORM_EPSILON"];
    for (path, text) in sources(&root().join("verifier/src/models/reference")) {
        for import in text.lines().filter_map(|line| line.trim().strip_prefix("use emo_exporter::")) {
            let module = allowed.iter().any(|a| import.starts_with(a));
            assert!(module, "{}: emo_exporter::{import}", path.display());
        }
    }
}

/// A family is its definition, its reference and its figures; everything else reads those.
const FAMILIES: [(&str, &[&str]); 3] = [
    (
        "emo2",
        &[
            "exporter/src/models/emo2.rs",
            "verifier/src/models/reference/emo2.rs",
            "verifier/src/models/figures/mod.rs",
            "verifier/src/models/figures/dense.rs",
        ],
    ),
    ("mobilenetv2", &["exporter/src/models/mobilenetv2.rs", "verifier/src/models/reference/mobilenetv2.rs"]),
    ("deit", &["exporter/src/models/deit.rs", "verifier/src/models/reference/deit.rs"]),
];

/// Where families are listed: a line each.
const LISTED: [&str; 2] = ["exporter/src/models/mod.rs", "verifier/src/models/reference/mod.rs"];

#[test]
fn a_family_is_one_place_on_each_side() {
    for (family, homes) in FAMILIES {
        for krate in CRATES {
            for (path, text) in sources(&root().join(krate).join("src")) {
                let home = homes.iter().chain(&LISTED).any(|home| path == root().join(home));
                let is_test = path.ends_with("tests.rs");
                let code = text.split("#[cfg(test)]").next().unwrap().lines();
                // The Meta Mobile Block's paper names the others as values of it.
                let mut code = code.filter(|line| !line.trim_start().starts_with("//"));
                let named = code.any(|line| line.to_lowercase().contains(family));
                assert!(home || is_test || !named, "{}: {family}", path.display());
            }
        }
    }
}

/// Lines of a file, its unit tests aside.
const LONGEST: usize = 510;

/// Files that would not fit a reader's head; generated code is none of ours.
#[test]
fn files_stay_small() {
    let mut long = BTreeMap::new();
    for krate in CRATES.into_iter().chain(["tests"]) {
        for (path, text) in sources(&root().join(krate)) {
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
            if lines > LONGEST && !path.ends_with("proto/src/onnx.rs") {
                long.insert(path, lines);
            }
        }
    }
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:?}");
}

/// A folder at the top needs a reason in `ARCHITECTURE.md`.
#[test]
fn the_top_level_is_the_house() {
    let rooms = ["proto", "exporter", "verifier", "zoo", "tests"];
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let folder = entry.file_type().unwrap().is_dir() && !name.starts_with('.') && name != "target";
        assert!(!folder || rooms.contains(&name.as_str()), "{name} is no room of the house");
    }
}
