//! What a pickle would make Python import and call, found without running any of it.
//!
//! A pickle is a program. The tensor reader runs none of it, so a callable is harmless
//! here; but a checkpoint that carries one is not what it pretends to be, and whoever
//! loads it elsewhere should know. Opcodes: CPython's `Lib/pickletools.py`.

use std::collections::{BTreeSet, HashMap};

/// What a checkpoint may name: tensors and plain data, as `torch.load(weights_only=True)`
/// has it, and the numpy scalars and command lines that training scripts save beside them.
const DATA: [&str; 34] = [
    "_codecs.encode",
    "__builtin__.bytearray",
    "__builtin__.complex",
    "__builtin__.frozenset",
    "__builtin__.set",
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "torch.Size",
    "torch.Tensor",
    "torch.bfloat16",
    "torch.bool",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.int8",
    "torch.int16",
    "torch.int32",
    "torch.int64",
    "torch.uint8",
    "torch._tensor._rebuild_from_type_v2",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
];

/// Pickles at the start of a file of PyTorch before 1.6: magic number, version, system,
/// object, storage keys. Raw numbers follow.
const PICKLES: usize = 5;

/// Steps of pickles that are taken. A tensor takes some forty, and each may make an object of a hundred bytes.
const MOST_STEPS: usize = 1 << 20;

/// Everything that the pickles at the start of `file` name beyond tensors and plain data:
/// `posix.system`. `None` where they go on for too long.
///
/// Stops at what is no pickle: the reader that follows tells why.
pub(super) fn foreign(file: &[u8]) -> Option<BTreeSet<String>> {
    let (mut names, mut steps) = (BTreeSet::new(), MOST_STEPS);
    let mut rest = Some(file);
    for _ in 0..PICKLES {
        rest = rest.and_then(|pickle| scan(pickle, &mut names, &mut steps));
    }
    names.retain(|name| !is_data(name));
    (steps > 0).then_some(names)
}

fn is_data(name: &str) -> bool {
    let storage = name.strip_prefix("torch.").is_some_and(|name| name.ends_with("Storage"));
    storage || name.starts_with("torch._utils._rebuild_") || DATA.contains(&name)
}

/// Add what one pickle names to `names`; the bytes after it, unless it is malformed.
fn scan<'a>(pickle: &'a [u8], names: &mut BTreeSet<String>, steps: &mut usize) -> Option<&'a [u8]> {
    let mut rest = Reader(pickle);
    let mut memo: HashMap<u64, Option<&[u8]>> = HashMap::new();
    // The two latest strings on the stack, as STACK_GLOBAL takes them, and what the
    // latest opcode pushed, as the memo takes it.
    let (mut module, mut name): (&[u8], &[u8]) = (b"?", b"?");
    let mut pushed: Option<&[u8]> = None;

    loop {
        let &[opcode] = rest.take(1)? else { return None };
        *steps = steps.saturating_sub(1);
        if *steps == 0 {
            return None;
        }
        let string = match opcode {
            b'.' => return Some(rest.0),
            // GLOBAL and INST spell what they name, STACK_GLOBAL takes it from the stack.
            b'c' | b'i' => {
                names.insert(dotted(rest.line()?, rest.line()?));
                None
            }
            0x93 => {
                names.insert(dotted(module, name));
                None
            }
            b'S' => Some(unquoted(rest.line()?)),
            b'V' => Some(rest.line()?),
            b'U' | 0x8c => Some(rest.counted(1)?),
            b'T' | b'X' => Some(rest.counted(4)?),
            0x8d => Some(rest.counted(8)?),
            b'g' => memo.get(&decimal(rest.line()?)?).copied().flatten(),
            b'h' => memo.get(&rest.number(1)?).copied().flatten(),
            b'j' => memo.get(&rest.number(4)?).copied().flatten(),
            b'p' | b'q' | b'r' | 0x94 => {
                let index = match opcode {
                    b'p' => decimal(rest.line()?)?,
                    b'q' => rest.number(1)?,
                    b'r' => rest.number(4)?,
                    _ => memo.len() as u64,
                };
                memo.insert(index, pushed);
                continue;
            }
            _ => {
                rest.skip(opcode)?;
                None
            }
        };
        if let Some(string) = string {
            (module, name) = (name, string);
        }
        pushed = string;
    }
}

/// The unread part of a pickle. `None` where it ends too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// A little-endian number of up to 8 bytes.
    fn number(&mut self, size: usize) -> Option<u64> {
        let mut number = [0; 8];
        number.get_mut(..size)?.copy_from_slice(self.take(size as u64)?);
        Some(u64::from_le_bytes(number))
    }

    /// As many bytes as a number of `size` bytes says.
    fn counted(&mut self, size: usize) -> Option<&'a [u8]> {
        let len = self.number(size)?;
        self.take(len)
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == b'\n')?;
        let line = self.take(end as u64)?;
        self.take(1)?;
        Some(line.trim_ascii_end())
    }

    /// The argument of an opcode that names nothing.
    fn skip(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            b'F' | b'I' | b'L' | b'P' => self.line(),
            b'K' | 0x80 | 0x82 => self.take(1),
            b'M' | 0x83 => self.take(2),
            b'J' | 0x84 => self.take(4),
            b'G' | 0x95 => self.take(8),
            b'C' | 0x8a => self.counted(1),
            b'B' | 0x8b => self.counted(4),
            0x8e | 0x96 => self.counted(8),
            b'('
            | b')'
            | b'0'
            | b'1'
            | b'2'
            | b'N'
            | b'Q'
            | b'R'
            | b']'
            | b'a'
            | b'b'
            | b'd'
            | b'e'
            | b'l'
            | b'o'
            | b's'
            | b't'
            | b'u'
            | b'}'
            | 0x81
            | 0x85..=0x89
            | 0x8f..=0x92
            | 0x97
            | 0x98 => Some(&[][..]),
            _ => None,
        }
        .map(|_| ())
    }
}

fn dotted(module: &[u8], name: &[u8]) -> String {
    format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name))
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'\'' | b'"', inner @ .., b'\'' | b'"'] => inner,
        _ => text,
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CPython's `pickle.dumps` writes an object whose `__reduce__` is
    /// `(os.system, ("true",))`, and as exploits are written by hand.
    #[test]
    fn callables_are_named_in_every_protocol() {
        let cases: [(&[u8], &str); 7] = [
            (b"cposix\nsystem\np0\n(Vtrue\np1\ntp2\nRp3\n.", "posix.system"),
            (b"\x80\x02cposix\nsystem\nq\0X\x04\0\0\0trueq\x01\x85q\x02Rq\x03.", "posix.system"),
            (
                b"\x80\x04\x95\x1f\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
                "posix.system",
            ),
            (b"cos\r\nsystem\r\n(S'true'\ntR.", "os.system"),
            (b"(S'true'\nios\nsystem\n.", "os.system"),
            // Module and name out of the memo, and the result thrown away.
            (
                b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940\x30h\x00h\x01\x93\x8c\x04true\x85R0}.",
                "posix.system",
            ),
            // In the second of two pickles.
            (b"\x80\x02K\x01.\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.", "__builtin__.eval"),
        ];
        for (pickle, name) in cases {
            assert_eq!(foreign(pickle).unwrap().into_iter().collect::<Vec<_>>(), [name], "{pickle:?}");
        }
    }

    #[test]
    fn data_is_not_foreign() {
        let pickle = b"\x80\x02ccollections\nOrderedDict\n)Rctorch\nFloatStorage\nctorch._utils\n_rebuild_tensor_v2\n.";
        assert!(foreign(pickle).unwrap().is_empty());
        for name in ["torch.hub.load", "torch.load", "torchFloatStorage", "builtins.eval"] {
            assert!(!is_data(name), "{name}");
        }
    }

    #[test]
    fn malformed_pickles_end_the_search() {
        for pickle in [
            &b""[..],
            b"\x80",
            b"c",
            b"cos\n",
            b"X\xff\xff\xff\xff",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            b"gx\n.",
        ] {
            assert!(foreign(pickle).unwrap().is_empty(), "{pickle:?}");
        }
    }
}
