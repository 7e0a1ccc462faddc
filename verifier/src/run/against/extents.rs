//! Numbers for dimensions that two files leave open.
//!
//! An extent of 1 tells nothing: softmax is over one element, a norm sees one value. What one of the files fixes
//! holds for both; what is left is large and of different sizes, as a table has them, and smaller row by row
//! where a graph refuses it.

use std::collections::{BTreeMap, BTreeSet};

use emo_proto::file::OnnxFile;
use emo_proto::{Error, Result, ValueInfoProto};
use serde::Serialize;

use super::Pair;
use crate::audit::inputs;
use crate::fact::Fact;
use crate::infer::{Bindings, declared};
use crate::sym::Expr;

/// Where the number of an open dimension comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The user, by --dim or --input, or the shape of recorded inputs.
    Given,
    /// The other of the two files.
    File,
    /// The table.
    Chosen,
}

/// A dimension that a file leaves open, and its extent in the runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extent {
    pub dimension: String,
    pub size: usize,
    pub from: Origin,
}

/// What the runs are made with: the shape of each input of the judged file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    pub shapes: Vec<Vec<usize>>,
    pub extents: Vec<Extent>,
}

/// A row: what an open extent is by where it stands.
struct Level {
    /// First axes, in turn.
    batches: &'static [usize],
    /// Heights and widths of images, in turn.
    pixels: &'static [usize],
    /// Every other axis, in turn: as many tokens, samples, boxes.
    lengths: &'static [usize],
}

/// From what tells most to what any graph takes. Windows, strides and pyramids divide 64; tables of positions
/// are short, samples are many, and some dimensions of two names must be one. None is 1 but the batch: a pass would tell
/// nothing.
const LEVELS: &[Level] = &[
    Level { batches: &[2, 3, 5], pixels: &[192, 256], lengths: &[24, 36, 20, 28, 32, 40] },
    Level { batches: &[2], pixels: &[192, 256], lengths: &[24, 36, 20, 28, 32, 40] },
    Level { batches: &[2], pixels: &[224], lengths: &[12, 10, 14, 9, 15, 11] },
    Level { batches: &[2], pixels: &[128, 64], lengths: &[6, 5, 7, 4, 8, 9] },
    Level { batches: &[2], pixels: &[96], lengths: &[16] },
    Level { batches: &[2], pixels: &[320, 448], lengths: &[4] },
    Level { batches: &[2], pixels: &[32, 48], lengths: &[2048, 1536] },
    Level { batches: &[6], pixels: &[64], lengths: &[6] },
    Level { batches: &[1], pixels: &[192, 256], lengths: &[24, 36, 20, 28, 32, 40] },
    Level { batches: &[1], pixels: &[224], lengths: &[16] },
    Level { batches: &[1], pixels: &[64], lengths: &[6, 5, 7, 4, 8, 9] },
    Level { batches: &[1], pixels: &[640], lengths: &[16_000] },
    Level { batches: &[1], pixels: &[32], lengths: &[2] },
];

/// What a class of dimensions that must be equal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Batch,
    Pixels,
    Length,
}

/// Dimensions of both files that have one extent.
#[derive(Debug, Clone)]
struct Class {
    /// As the files call it: 0 for the judged one, 1 for the other. None where it became part of another class.
    names: BTreeSet<(usize, String)>,
    number: Option<(usize, Origin)>,
    role: Role,
}

/// An extent of an input: a number that both files have, or a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Fixed(usize),
    Class(usize),
}

/// The open dimensions of two files whose inputs are paired.
#[derive(Debug)]
pub struct Open {
    classes: Vec<Class>,
    /// For each input of the judged file.
    axes: Vec<Vec<Axis>>,
}

/// The inputs of a file.
pub fn ports(file: &OnnxFile) -> Vec<&ValueInfoProto> {
    file.model.graph.iter().flat_map(inputs).collect()
}

/// The extents of a file's inputs: as they are declared, and with the numbers that were given.
type Facts<'a> = BTreeMap<&'a str, (Fact, Fact)>;

fn facts<'a>(file: &'a OnnxFile, dims: &Bindings) -> Facts<'a> {
    let fact = |value: &'a ValueInfoProto| {
        (value.name(), (declared(value, &Bindings::new()), declared(value, dims)))
    };
    ports(file).into_iter().map(fact).collect()
}

impl Open {
    /// What the inputs of `file` and `truth` leave open when `dims`, of each, are given.
    ///
    /// # Errors
    /// Two paired inputs have other ranks or other extents, or neither declares a shape; names the input and
    /// the dimension.
    pub fn of(pairs: &[Pair], file: &OnnxFile, truth: &OnnxFile, dims: [&Bindings; 2]) -> Result<Self> {
        let (own, other) = (facts(file, dims[0]), facts(truth, dims[1]));
        let mut open = Self { classes: Vec::new(), axes: Vec::new() };
        for pair in pairs {
            let at = |error: Error| error.at(pair.own);
            let both = [&own[pair.own], &other[pair.other]];
            let (mine, theirs) = match both.map(|(_, now)| &now.dims) {
                [Ok(mine), Ok(theirs)] if mine.len() != theirs.len() => {
                    let (shape, found) = (describe(theirs), describe(mine));
                    let message = format!("expected the shape of {}, {shape}, found {found}", pair.other);
                    return Err(at(Error::new(message)));
                }
                [Ok(mine), Ok(theirs)] => (mine, theirs),
                [Ok(one), Err(_)] | [Err(_), Ok(one)] => (one, one),
                [Err(reason), Err(_)] => {
                    return Err(at(Error::new(format!("expected a shape for it, found none: {reason}"))));
                }
            };
            let roles = roles(mine, theirs);
            let axes = (0..mine.len()).map(|axis| {
                let before = both.map(|(before, _)| before.dims.as_ref().ok()?.get(axis));
                open.axis(before, [&mine[axis], &theirs[axis]], roles[axis])
                    .map_err(|error| at(Error::new(format!("axis {axis}: {error}"))))
            });
            let axes = axes.collect::<Result<Vec<Axis>>>()?;
            open.axes.push(axes);
        }
        Ok(open)
    }

    /// One axis of both files, whose extents must be the same: as they are declared, and as they are given.
    fn axis(&mut self, before: [Option<&Expr>; 2], now: [&Expr; 2], role: Role) -> Result<Axis> {
        let number = |extent: &Expr| extent.count().and_then(|n| usize::try_from(n).ok());
        if let [Some(a), Some(b)] = now.map(number)
            && a != b
        {
            return Err(Error::new(format!("expected {b} as the other file has, found {a}")));
        }
        let open =
            before.iter().enumerate().filter_map(|(i, e)| Some((i, e.filter(|e| number(e).is_none())?)));
        let names: BTreeSet<(usize, String)> = open.map(|(i, extent)| (i, extent.to_string())).collect();
        let fixed = (0..2).find_map(|i| {
            let declared = before[i].is_some_and(|extent| number(extent).is_some());
            Some((number(now[i])?, if declared { Origin::File } else { Origin::Given }))
        });
        match fixed {
            Some((n, _)) if names.is_empty() => Ok(Axis::Fixed(n)),
            _ => Ok(Axis::Class(self.merge(Class { names, number: fixed, role })?)),
        }
    }

    /// The class that `class` is one with: the same name is the same number wherever a file has it.
    fn merge(&mut self, class: Class) -> Result<usize> {
        let same = |(_, known): &(usize, &Class)| !known.names.is_disjoint(&class.names);
        let found: Vec<usize> = self.classes.iter().enumerate().filter(same).map(|(i, _)| i).collect();
        let Some((&home, others)) = found.split_first() else {
            self.classes.push(class);
            return Ok(self.classes.len() - 1);
        };
        self.classes[home].absorb(class)?;
        for &other in others {
            let empty = Class { names: BTreeSet::new(), number: None, role: Role::Batch };
            let absorbed = std::mem::replace(&mut self.classes[other], empty);
            self.classes[home].absorb(absorbed)?;
            let moved = self.axes.iter_mut().flatten().filter(|axis| **axis == Axis::Class(other));
            moved.for_each(|axis| *axis = Axis::Class(home));
        }
        Ok(home)
    }

    /// Shapes to try, the most telling first; one where nothing is left to choose.
    pub fn candidates(&self) -> Vec<Sizes> {
        let mut found: Vec<Sizes> = Vec::new();
        for level in LEVELS {
            let sizes = self.at(level);
            if !found.contains(&sizes) {
                found.push(sizes);
            }
        }
        found
    }

    /// The shapes of recorded inputs.
    pub fn given(&self, shapes: &[Vec<usize>]) -> Sizes {
        let size = |class: usize| {
            let at = |(i, axes): (usize, &Vec<Axis>)| {
                let axis = axes.iter().position(|&axis| axis == Axis::Class(class))?;
                shapes.get(i)?.get(axis).copied()
            };
            self.axes.iter().enumerate().find_map(at)
        };
        let extent = |(i, class): (usize, &Class)| {
            Some(Extent { dimension: class.name()?.to_owned(), size: size(i)?, from: Origin::Given })
        };
        let extents = self.classes.iter().enumerate().filter_map(extent).collect();
        Sizes { shapes: shapes.to_vec(), extents }
    }

    /// The dimensions that nothing fixes.
    pub fn names(&self) -> Vec<String> {
        let chosen = self.classes.iter().filter(|class| class.number.is_none());
        chosen.filter_map(|class| class.name().map(str::to_owned)).collect()
    }

    fn at(&self, level: &Level) -> Sizes {
        let [mut batches, mut pixels, mut lengths] =
            [level.batches, level.pixels, level.lengths].map(|sizes| sizes.iter().cycle());
        let mut chosen = |class: &Class| {
            let size = match class.role {
                _ if class.names.is_empty() => None,
                Role::Batch => batches.next().copied(),
                Role::Pixels => pixels.next().copied(),
                Role::Length => lengths.next().copied(),
            };
            (size.unwrap_or(1), Origin::Chosen)
        };
        let mut numbers: Vec<(usize, Origin)> =
            self.classes.iter().map(|class| class.number.unwrap_or_else(|| chosen(class))).collect();
        // `past + new` is the sum of what it names.
        let sums: Vec<Option<usize>> = self.classes.iter().map(|class| self.sum(class, &numbers)).collect();
        for (number, sum) in numbers.iter_mut().zip(sums) {
            number.0 = sum.unwrap_or(number.0);
        }
        let extent = |axis: &Axis| match *axis {
            Axis::Fixed(n) => n,
            Axis::Class(class) => numbers[class].0,
        };
        let named = self.classes.iter().zip(&numbers).filter_map(|(class, &(size, from))| {
            Some(Extent { dimension: class.name()?.to_owned(), size, from })
        });
        let extents = named.collect();
        Sizes { shapes: self.axes.iter().map(|axes| axes.iter().map(extent).collect()).collect(), extents }
    }

    fn sum(&self, class: &Class, numbers: &[(usize, Origin)]) -> Option<usize> {
        let (file, name) = class.names.first().filter(|_| class.number.is_none())?;
        let term = |term: &str| {
            let key = (*file, term.to_owned());
            let known = || self.classes.iter().position(|class| class.names.contains(&key));
            term.parse().ok().or_else(|| Some(numbers[known()?].0))
        };
        name.contains('+').then(|| name.split('+').map(|part| term(part.trim())).sum())?
    }
}

impl Class {
    /// As the judged file calls it, or else the other.
    fn name(&self) -> Option<&str> {
        self.names.first().map(|(_, name)| name.as_str())
    }

    fn absorb(&mut self, other: Class) -> Result<()> {
        match (self.number, other.number) {
            (Some((a, _)), Some((b, _))) if a != b => {
                let name = self.name().unwrap_or_default();
                return Err(Error::new(format!("expected one size for {name}, found {a} and {b}")));
            }
            (None, number) => self.number = number,
            (Some(_), _) => {}
        }
        self.names.extend(other.names);
        // A batch stands at the first axis wherever it stands.
        self.role = if self.role == Role::Batch { other.role } else { self.role };
        Ok(())
    }
}

/// What each axis of an input stands for.
fn roles(own: &[Expr], other: &[Expr]) -> Vec<Role> {
    let rank = own.len();
    let channels = |axis: usize| {
        let few = |extent: &Expr| extent.number().is_some_and(|n| (1..=4).contains(&n));
        few(&own[axis]) || few(&other[axis])
    };
    let pixels = match rank == 4 && channels(1) {
        true => 2..4,
        false if rank == 4 && channels(3) => 1..3,
        false => 0..0,
    };
    let role = |axis: usize| match axis {
        0 if rank > 1 => Role::Batch,
        axis if pixels.contains(&axis) => Role::Pixels,
        _ => Role::Length,
    };
    (0..rank).map(role).collect()
}

fn describe(dims: &[Expr]) -> String {
    format!("[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
