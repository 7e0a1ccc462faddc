//! NumPy's array files: `.npy`, and `.npz`, a zip archive of them.
//!
//! The format is NumPy's "enhancement proposal 1", versions 1 to 3: a magic, the length of a header, the header
//! as a Python dictionary, the elements.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use emo_proto::{Error, Result};
use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

/// Elements beyond which an array is held to be a trap.
const MOST_ELEMENTS: usize = 1 << 28;
/// Times its own size that an archive may hold, and beyond: numbers of a computation hardly compress.
const MOST_TIMES: u64 = 64;
const SLACK: u64 = 1 << 26;
/// Bytes that a header may take, far more than one needs.
const LONGEST_HEADER: usize = 1 << 16;

/// The array of the `.npy` file at `path`, as f32.
///
/// # Errors
/// It cannot be read, is cut short or of another format, or its elements are no numbers that f32 holds.
pub fn npy(path: &Path) -> Result<ArrayD<f32>> {
    let at = |error: Error| error.at(path.display());
    let file = emo_proto::file::regular(path).map_err(|cause| at(Error::new(cause)))?;
    array(&mut std::io::BufReader::new(file), u64::MAX).map_err(at)
}

/// The arrays of the `.npz` file at `path` by name, in the file's order.
///
/// # Errors
/// Those of [`npy`] for any of them, and those of the archive.
pub fn npz(path: &Path) -> Result<Vec<(String, ArrayD<f32>)>> {
    let at = |error: Error| error.at(path.display());
    let file = emo_proto::file::regular(path).map_err(|cause| at(Error::new(cause)))?;
    archive(std::io::BufReader::new(file)).map_err(at)
}

fn archive(mut file: impl Read + Seek) -> Result<Vec<(String, ArrayD<f32>)>> {
    let size = file.seek(SeekFrom::End(0)).map_err(Error::new)?;
    let mut left = size.saturating_mul(MOST_TIMES).saturating_add(SLACK);
    let mut archive = zip::ZipArchive::new(file).map_err(Error::new)?;
    let (mut arrays, mut total) = (Vec::new(), 0);
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(Error::new)?;
        let file = entry.name().map_err(Error::new)?.into_owned();
        let name = file.strip_suffix(".npy").unwrap_or(&file).to_owned();
        let array = array(&mut entry, left).map_err(|error| error.at(&name))?;
        // What it takes, whatever it was in the archive.
        left = left.saturating_sub(4 * array.len() as u64);
        total += array.len();
        if total > MOST_ELEMENTS {
            return Err(Error::new(format!("expected {MOST_ELEMENTS} elements at most, found more")));
        }
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// Reads one array of `most` bytes at most.
fn array(file: &mut impl Read, most: u64) -> Result<ArrayD<f32>> {
    let mut start = [0; 8];
    fill(file, &mut start)?;
    let [magic @ .., major, _] = &start;
    if magic != b"\x93NUMPY" {
        return Err(Error::new("expected a NumPy array, found another kind of file"));
    }
    let length = match major {
        1 => {
            let mut length = [0; 2];
            fill(file, &mut length)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(file, &mut length)?;
            u32::from_le_bytes(length) as usize
        }
        other => return Err(Error::new(format!("expected version 1 to 3 of NumPy's format, found {other}"))),
    };
    if length > LONGEST_HEADER {
        return Err(Error::new(format!(
            "expected a header of {LONGEST_HEADER} bytes at most, found {length}"
        )));
    }
    let mut header = vec![0; length];
    fill(file, &mut header)?;
    let header = std::str::from_utf8(&header).map_err(Error::new)?;
    let Header { element, fortran, shape } = Header::parse(header)
        .ok_or_else(|| Error::new(format!("expected a header of NumPy's, found {}", header.trim_end())))?;
    let count = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim)).filter(|&n| n <= MOST_ELEMENTS);
    let count = count.ok_or_else(|| {
        Error::new(format!("expected {MOST_ELEMENTS} elements at most, found the shape {shape:?}"))
    })?;
    let read = element.reader()?;
    // As many as there are: the header may promise more.
    let mut bytes = Vec::new();
    let size = count * element.size;
    if size as u64 > most {
        return Err(Error::new(format!(
            "expected an archive that holds {MOST_TIMES} times its size at most, found an array of {size} bytes"
        )));
    }
    file.take(size as u64).read_to_end(&mut bytes).map_err(Error::new)?;
    if bytes.len() != size {
        return Err(Error::new(format!("expected {size} bytes of elements, found {}", bytes.len())));
    }
    if element.big_endian {
        bytes.chunks_exact_mut(element.size).for_each(<[u8]>::reverse);
    }
    // A list that grows would take three times as much.
    let mut values = Vec::with_capacity(count);
    for element in bytes.chunks_exact(element.size) {
        values.push(read(element)?);
    }
    ArrayD::from_shape_vec(IxDyn(&shape).set_f(fortran), values).map_err(Error::new)
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<()> {
    file.read_exact(buffer).map_err(|_| Error::new("expected a NumPy array, found a file that is cut short"))
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    element: Element,
    fortran: bool,
    shape: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Element {
    big_endian: bool,
    kind: char,
    size: usize,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }`
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut rest = text.strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut element, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, value) = quoted(rest)?;
            let value = value.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" => {
                    let (text, after) = quoted(value)?;
                    element = Some(Element::parse(text)?);
                    after
                }
                "fortran_order" => {
                    let known = [("True", true), ("False", false)];
                    let (word, truth) = known.into_iter().find(|(word, _)| value.starts_with(word))?;
                    fortran = Some(truth);
                    &value[word.len()..]
                }
                "shape" => {
                    let (dims, after) = value.strip_prefix('(')?.split_once(')')?;
                    let dims = dims.trim().trim_end_matches(',');
                    let number = |dim: &str| dim.trim().trim_end_matches('L').parse().ok();
                    let dims = dims.split(',').filter(|_| !dims.is_empty());
                    shape = Some(dims.map(number).collect::<Option<Vec<usize>>>()?);
                    after
                }
                _ => return None,
            };
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Header { element: element?, fortran: fortran?, shape: shape? })
    }
}

/// A text in quotation marks at the start, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(mark)
}

/// Makes an f32 of the bytes of an element.
type Reader = fn(&[u8]) -> Result<f32>;

impl Element {
    /// `<f4`
    fn parse(text: &str) -> Option<Self> {
        let big_endian = match text.as_bytes().first()? {
            b'<' | b'|' => false,
            b'=' => cfg!(target_endian = "big"),
            b'>' => true,
            _ => return None,
        };
        let kind = text[1..].chars().next()?;
        let size = text[1 + kind.len_utf8()..].parse().ok()?;
        Some(Element { big_endian, kind, size })
    }

    /// What makes an f32 of the bytes of an element, little-endian.
    fn reader(&self) -> Result<Reader> {
        /// The bytes, with zeros or ones behind them as the sign asks.
        fn extend<const N: usize>(bytes: &[u8], fill: u8) -> [u8; N] {
            std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(fill))
        }
        fn exact(n: i128) -> Result<f32> {
            let float = n as f32;
            if float as i128 == n {
                return Ok(float);
            }
            Err(Error::new(format!("expected integers that f32 holds exactly, found {n}")))
        }
        Ok(match (self.kind, self.size) {
            ('f', 2) => |b| Ok(f16::from_le_bytes(extend(b, 0)).to_f32()),
            ('f', 4) => |b| Ok(f32::from_le_bytes(extend(b, 0))),
            ('f', 8) => |b| Ok(f64::from_le_bytes(extend(b, 0)) as f32),
            ('b', 1) => |b| Ok(if b == [0] { 0.0 } else { 1.0 }),
            ('u', 1 | 2 | 4 | 8) => |b| exact(u64::from_le_bytes(extend(b, 0)).into()),
            ('i', 1 | 2 | 4 | 8) => |b| {
                let sign = if b.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 };
                exact(i64::from_le_bytes(extend(b, sign)).into())
            },
            (kind, size) => {
                return Err(Error::new(format!("expected elements that are numbers, found {kind}{size}")));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;

    use super::*;

    /// A file as `numpy.save` writes it: the header padded so that elements start at a multiple of 64.
    fn saved(descr: &str, fortran: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend(u16::try_from(length).unwrap().to_le_bytes());
        file.extend(format!("{header:<0$}\n", length - 1).bytes());
        file.extend(elements);
        file
    }

    fn read(file: &[u8]) -> Result<ArrayD<f32>> {
        array(&mut &*file, u64::MAX)
    }

    #[test]
    fn elements_of_every_type() {
        let cases: [(&str, &[u8], f32); 12] = [
            ("<f4", &[0, 0, 0xC0, 0x3F], 1.5),
            (">f4", &[0x3F, 0xC0, 0, 0], 1.5),
            ("<f2", &[0, 0x3E], 1.5),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xF8, 0x3F], 1.5),
            ("|b1", &[1], 1.0),
            ("|u1", &[200], 200.0),
            ("|i1", &[200], -56.0),
            ("<i2", &[0xFE, 0xFF], -2.0),
            (">i2", &[0xFF, 0xFE], -2.0),
            ("<u4", &[1, 1, 0, 0], 257.0),
            ("<i8", &[0xFD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], -3.0),
            ("<u8", &[0, 0, 0, 0, 1, 0, 0, 0], 4_294_967_296.0),
        ];
        for (descr, bytes, value) in cases {
            let found = read(&saved(descr, "False", "(1,)", bytes)).expect(descr);
            assert_eq!((found.shape(), found[[0]]), (&[1][..], value), "{descr}");
        }
    }

    #[test]
    fn shapes_and_orders() {
        let bytes: Vec<u8> = (0..6).collect();
        let rows = read(&saved("|u1", "False", "(2, 3)", &bytes)).unwrap();
        let columns = read(&saved("|u1", "True", "(2, 3)", &bytes)).unwrap();
        assert_eq!((rows.shape(), rows[[1, 0]], columns[[1, 0]]), (&[2, 3][..], 3.0, 1.0));
        let scalar = read(&saved("|u1", "False", "()", &bytes[..1])).unwrap();
        assert_eq!((scalar.ndim(), scalar.len()), (0, 1));
        assert_eq!(read(&saved("|u1", "False", "(0, 5)", &[])).unwrap().shape(), [0, 5]);
    }

    #[test]
    fn what_is_no_array_of_numbers_is_an_error() {
        let cases: [(Vec<u8>, &str); 9] = [
            (b"".to_vec(), "cut short"),
            (b"PK\x03\x04whatever".to_vec(), "another kind of file"),
            (b"\x93NUMPY\x09\x00".to_vec(), "version 1 to 3"),
            (b"\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF".to_vec(), "header of 65536 bytes"),
            (saved("<f4", "False", "(2,)", &[0; 4]), "expected 8 bytes of elements, found 4"),
            (saved("<f4", "Maybe", "(1,)", &[0; 4]), "expected a header"),
            (saved("<U4", "False", "(1,)", &[0; 16]), "found U4"),
            (saved("|u1", "False", "(4294967296, 4294967296, 4294967296)", &[]), "elements at most"),
            (saved("<i4", "False", "(1,)", &[1, 0, 0, 1]), "f32 holds exactly, found 16777217"),
        ];
        for (file, expected) in cases {
            let message = read(&file).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn an_archive_is_its_arrays_by_name() {
        let mut file = Cursor::new(Vec::new());
        let mut archive = zip::ZipWriter::new(&mut file);
        for (name, byte) in [("input.npy", 1), ("logits.npy", 2)] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(&saved("|u1", "False", "(1,)", &[byte])).unwrap();
        }
        archive.finish().unwrap();
        let arrays = super::archive(file).unwrap();
        let values: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array[[0]])).collect();
        assert_eq!(values, [("input", 1.0), ("logits", 2.0)]);
        assert!(super::archive(Cursor::new(b"no archive")).is_err());
    }

    #[test]
    fn arrays_that_are_small_in_an_archive_are_counted_as_they_are_read() {
        let mut file = Cursor::new(Vec::new());
        let mut archive = zip::ZipWriter::new(&mut file);
        for name in ["a.npy", "b.npy"] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            // A byte each, and four as f32.
            archive.write_all(&saved("|u1", "False", "(20000000,)", &vec![0; 20_000_000])).unwrap();
        }
        archive.finish().unwrap();
        let message = super::archive(file).unwrap_err().to_string();
        assert!(message.starts_with("b: expected an archive that holds 64 times its size"), "{message}");
    }

    proptest! {
        /// Whatever the bytes are, the answer is an array or an error.
        #[test]
        fn hostile_files_do_not_panic(start in 0_usize..140, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = saved("<f4", "False", "(1, 3)", &[0; 12]);
            let end = file.len().min(start + bytes.len());
            file.splice(start.min(end)..end, bytes);
            let _ = read(&file);
        }

        #[test]
        fn hostile_headers_do_not_panic(header in "\\PC*") {
            let _ = Header::parse(&header);
            let _ = Header::parse(&format!("{{{header}}}"));
            let _ = Header::parse(&format!("{{'descr': '{header}', 'shape': ({header})}}"));
        }
    }
}
