//! Small files that would take much memory or time: whoever refuses one, or counts it, does so in little.

use std::fs;
use std::io::{Cursor, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use emo_proto::tensor_proto::DataType;
use emo_proto::{FunctionProto, Message as _, ModelProto};
use emo_tests::onnx::*;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::command::EMO;

/// Address space that a command gets, in units of 1024 bytes: the program itself takes a third of it.
const MEMORY: u32 = 300_000;
const SOON: Duration = Duration::from_secs(20);

/// `f0` calls `f1` twice, which calls `f2` twice, and so on.
fn doubling(functions: usize) -> Vec<u8> {
    let call = |callee: usize, from: &str, to: &str| {
        let mut call = node(&format!("f{callee}"), &[from], &[to], vec![]);
        call.domain = Some("trap".to_owned());
        call
    };
    let function = |i: usize| FunctionProto {
        node: vec![call(i + 1, "x", "t"), call(i + 1, "t", "y")],
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        name: Some(format!("f{i}")),
        domain: Some("trap".to_owned()),
        opset_import: vec![opset("trap", 1)],
        ..Default::default()
    };
    let inputs = vec![value("x", DataType::Float, &[1.into()])];
    let outputs = vec![value("y", DataType::Float, &[1.into()])];
    let graph =
        emo_proto::GraphProto { output: outputs, ..graph_of(inputs, vec![], vec![call(0, "x", "y")], &[]) };
    let mut model = ModelProto { functions: (0..functions).map(function).collect(), ..model(17, graph) };
    model.opset_import.push(opset("trap", 1));
    model.encode_to_vec()
}

fn opset(domain: &str, version: i64) -> emo_proto::OperatorSetIdProto {
    emo_proto::OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// A message's field that its length precedes.
fn field(tag: u8, held: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag << 3 | 2];
    let mut length = held.len();
    while length > 0x7f {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(held);
    bytes
}

/// A model whose graph is `message`, two bytes, over and over.
fn empties(message: &[u8]) -> Vec<u8> {
    field(7, &message.repeat(4_000_000))
}

fn identity() -> Vec<u8> {
    let image = |name: &str| value(name, DataType::Float, &[1.into(), 3.into(), 32.into(), 32.into()]);
    let graph = graph_of(vec![image("x")], vec![], vec![node("Identity", &["x"], &["y"], vec![])], &[]);
    model(17, emo_proto::GraphProto { output: vec![image("y")], ..graph }).encode_to_vec()
}

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    archive.start_file(name, packed).unwrap();
    archive.write_all(content).unwrap();
    archive.finish().unwrap().into_inner()
}

/// A pickle of empty dictionaries in a list.
fn pickle() -> Vec<u8> {
    [b"\x80\x02](".as_slice(), &b"}".repeat(16 << 20), b"e."].concat()
}

/// A picture of one pixel with a colour profile of half a gigabyte, in half a megabyte.
fn profiled() -> Vec<u8> {
    let zeros = archive("zeros", &vec![0; 512 << 20]);
    let mut opened = ZipArchive::new(Cursor::new(&zeros)).unwrap();
    let entry = opened.by_index(0).unwrap();
    let start = entry.data_start().unwrap() as usize;
    let packed = &zeros[start..start + entry.compressed_size() as usize];
    // Deflated bytes in zlib's frame; the sum of zeros is their number, times 65536, and 1.
    let sum = ((512_u32 << 20) % 65_521) << 16 | 1;
    let profile = [b"p\0\0\x78\x9c", packed, &sum.to_be_bytes()].concat();
    let row = archive("row", &[0, 9, 9, 9]);
    let mut opened = ZipArchive::new(Cursor::new(&row)).unwrap();
    let entry = opened.by_index(0).unwrap();
    let start = entry.data_start().unwrap() as usize;
    let pixels =
        [b"\x78\x9c", &row[start..start + entry.compressed_size() as usize], &[0, 58, 0, 28]].concat();
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0];
    let mut picture = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, held) in [(b"IHDR", &header[..]), (b"iCCP", &profile), (b"IDAT", &pixels), (b"IEND", &[])] {
        picture.extend((held.len() as u32).to_be_bytes());
        picture.extend(name);
        picture.extend(held);
        picture.extend(checksum(&[name.as_slice(), held].concat()).to_be_bytes());
    }
    picture
}

/// CRC-32, as PNG has it.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

/// An array of zeros, a thousand times smaller as an archive.
fn zeros() -> Vec<u8> {
    let mut header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 4096, 8192), }".to_vec();
    header.resize(118, b' ');
    let mut array = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), &header].concat();
    array.resize(array.len() + 4 * 3 * 4096 * 8192, 0);
    archive("x.npy", &array)
}

/// A checkpoint of 100,000 tensors that no model has.
fn names() -> Vec<u8> {
    let entry = |i: usize| {
        format!(r#""stage9.{i}.conv_local.norm.weight":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)
    };
    let header = format!("{{{}}}", (0..100_000).map(entry).collect::<Vec<_>>().join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

/// Extents and counts that are told in a few bytes and would be gigabytes.
fn giants() -> Vec<u8> {
    let inputs = vec![value("x", DataType::Float, &[1.into()])];
    let constants = vec![
        list("huge", &[1 << 40]),
        scalar("zero", 0),
        scalar("far", i64::MAX),
        scalar("one", 1),
        list("many", &[1 << 40]),
    ];
    let nodes = vec![
        node("ConstantOfShape", &["huge"], &["a"], vec![]),
        node("Range", &["zero", "far", "one"], &["b"], vec![]),
        node("Expand", &["x", "huge"], &["c"], vec![]),
        node("Tile", &["x", "many"], &["d"], vec![]),
        node("Identity", &["x"], &["y"], vec![]),
    ];
    model(17, graph_of(inputs, constants, nodes, &["y"])).encode_to_vec()
}

#[cfg(target_os = "linux")]
#[test]
fn small_files_take_little_memory() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
    write("identity.onnx", identity());
    write("doubling20.onnx", doubling(20));
    write("doubling60.onnx", doubling(60));
    write("nodes.onnx", empties(&field(1, b"")));
    write("tensors.onnx", empties(&field(5, b"")));
    write("attributes.onnx", field(7, &field(1, &field(5, b"").repeat(4_000_000))));
    write("giants.onnx", giants());
    write("pickle.pth", pickle());
    write("packed.pth", archive("archive/data.pkl", &pickle()));
    write("names.safetensors", names());
    write("profile.png", profiled());
    write("zeros.npz", zeros());

    let against = ["verify", "identity.onnx", "--against", "identity.onnx", "--data"];
    let export = ["export", "emo-1m", "--weights"];
    let mut cases: Vec<(Vec<&str>, &[i32])> = Vec::new();
    for file in ["doubling20.onnx", "doubling60.onnx"] {
        cases.push((vec!["audit", file], &[3]));
        cases.push((vec!["check", file], &[0, 1, 3]));
        cases.push((vec!["dump", file], &[0]));
        cases.push((vec!["diff", file, file], &[0, 3]));
        cases.push((vec!["lint", file, "--target", "coreml"], &[0, 1, 3]));
        cases.push((vec!["verify", file], &[1, 2, 3]));
    }
    for file in ["nodes.onnx", "tensors.onnx", "attributes.onnx"] {
        for command in ["audit", "check", "dump", "verify"] {
            cases.push((vec![command, file], &[2]));
        }
    }
    for command in ["audit", "check", "dump"] {
        cases.push((vec![command, "giants.onnx"], &[0, 1, 3]));
    }
    for file in ["pickle.pth", "packed.pth", "names.safetensors"] {
        cases.push(([&export[..], &[file]].concat(), &[2]));
    }
    cases.push(([&against[..], &["profile.png"]].concat(), &[0]));
    cases.push(([&against[..], &["zeros.npz"]].concat(), &[2]));

    for (arguments, codes) in cases {
        let start = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""), EMO]).args(&arguments);
        // A thread's own heap is address space that nobody fills.
        shell.current_dir(folder.path()).env("MALLOC_ARENA_MAX", "1").env("RAYON_NUM_THREADS", "2");
        let output = shell.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{arguments:?}: {:?}: {stderr}",
            output.status
        );
        assert!(start.elapsed() < SOON, "{arguments:?} took {:?}", start.elapsed());
    }
}
