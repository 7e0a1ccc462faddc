//! Payloads of tensors: one, of the right kind and size, where the file says that it is.

use std::fs;
use std::path::{Component, Path};

use emo_proto::tensor::{DataType, Tensor};
use emo_proto::tensor_proto::DataLocation;
use emo_proto::{SparseTensorProto, StringStringEntryProto, TensorProto};

use super::{Check, Severity, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "tensor-type",
        severity: Severity::Error,
        what: "a tensor says its element type",
        run: |s, f| {
            for (place, tensor) in s.tensors() {
                if let Err(why) = element_type(tensor) {
                    f.add(place, why);
                }
            }
        },
    },
    Check {
        code: "tensor-payload",
        severity: Severity::Error,
        what: "a tensor has one payload, in the field of its type, as large as its dimensions ask for",
        run: |s, f| {
            for (place, tensor) in s.tensors().filter(|(_, t)| !is_external(t) && element_type(t).is_ok()) {
                if let Err(why) = payload(tensor) {
                    f.add(place, why);
                }
            }
        },
    },
    Check {
        code: "external-payload",
        severity: Severity::Error,
        what: "a tensor whose data is outside has none inside",
        run: |s, f| {
            for (place, tensor) in s.tensors().filter(|(_, tensor)| is_external(tensor)) {
                if let Some(field) = filled(tensor).first() {
                    f.add(
                        place,
                        format!("expected its data outside of the file, found {field} too; drop one"),
                    );
                }
            }
        },
    },
    Check {
        code: "external-location",
        severity: Severity::Error,
        what: "external data has a relative location below the model's folder and sane numbers",
        run: |s, f| {
            for (place, tensor) in s.tensors().filter(|(_, tensor)| is_external(tensor)) {
                if let Err(why) = location(tensor).and_then(|_| extent(tensor)) {
                    f.add(place, why);
                }
            }
        },
    },
    Check {
        code: "external-missing",
        severity: Severity::Error,
        what: "external data is there: a regular file that no link leads to",
        run: |s, f| {
            for (place, tensor) in s.tensors().filter(|(_, tensor)| is_external(tensor)) {
                let (Ok(location), Some(folder)) = (location(tensor), s.folder) else { continue };
                if let Err(why) = regular(folder, location) {
                    f.add(place, format!("expected its data in {location}, {why}"));
                }
            }
        },
    },
    Check {
        code: "external-range",
        severity: Severity::Error,
        what: "external data has the bytes that the tensor asks for",
        run: |s, f| {
            for (place, tensor) in s.tensors().filter(|(_, tensor)| is_external(tensor)) {
                let (Ok(location), Some(folder)) = (location(tensor), s.folder) else { continue };
                if regular(folder, location).is_ok()
                    && extent(tensor).is_ok()
                    && filled(tensor).is_empty()
                    && let Err(error) = Tensor::decode(tensor, s.external)
                {
                    f.add(place, without_name(tensor, &error.to_string()));
                }
            }
        },
    },
    Check {
        code: "sparse-tensor",
        severity: Severity::Error,
        what: "a sparse tensor has values, and ascending positions of them within its shape",
        run: |s, f| {
            for (place, sparse) in sparse_tensors(s) {
                if let Err(why) = check_sparse(s, sparse) {
                    f.add(place, why);
                }
            }
        },
    },
];

pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External.into())
}

/// The fields that hold a payload.
fn filled(t: &TensorProto) -> Vec<&'static str> {
    let fields = [
        ("float_data", t.float_data.len()),
        ("int32_data", t.int32_data.len()),
        ("string_data", t.string_data.len()),
        ("int64_data", t.int64_data.len()),
        ("raw_data", t.raw_data.as_ref().map_or(0, emo_proto::Bytes::len)),
        ("double_data", t.double_data.len()),
        ("uint64_data", t.uint64_data.len()),
    ];
    fields.into_iter().filter(|(_, len)| *len > 0).map(|(name, _)| name).collect()
}

fn element_type(tensor: &TensorProto) -> Result<DataType, String> {
    match tensor.data_type.map(DataType::try_from) {
        None | Some(Ok(DataType::Undefined)) => {
            Err("expected an element type, found none; set data_type".to_owned())
        }
        Some(Err(_)) => {
            Err(format!("expected an element type of the schema, found number {}", tensor.data_type()))
        }
        Some(Ok(dtype)) => Ok(dtype),
    }
}

fn payload(tensor: &TensorProto) -> Result<(), String> {
    let dtype = element_type(tensor)?;
    if dtype == DataType::String {
        return strings(tensor);
    }
    let decoded = Tensor::decode(tensor, &emo_proto::tensor::External::none());
    let decoded = decoded.map_err(|error| without_name(tensor, &error.to_string()))?;
    // Four elements of 6 bits lie in three bytes; what is left of the last byte is zero.
    let used = decoded.len() * 6 % 8;
    let six = matches!(dtype, DataType::Float6e2m3 | DataType::Float6e3m2);
    match decoded.bytes().last() {
        Some(last) if six && used != 0 && last >> used != 0 => {
            Err(format!("expected zeros after the last of {} elements, found {last:#04x}", decoded.len()))
        }
        _ => Ok(()),
    }
}

fn strings(tensor: &TensorProto) -> Result<(), String> {
    let count = tensor.dims.iter().try_fold(1_i64, |n, &dim| n.checked_mul(dim).filter(|_| dim >= 0));
    match (filled(tensor).as_slice(), count) {
        ([] | ["string_data"], Some(count)) if count == tensor.string_data.len() as i64 => Ok(()),
        ([] | ["string_data"], _) => {
            let found = tensor.string_data.len();
            Err(format!("expected as many strings as {:?} asks for, found {found}", tensor.dims))
        }
        (fields, _) => Err(format!("expected strings in string_data, found {}", fields.join(" and "))),
    }
}

/// The place says the tensor already.
fn without_name(tensor: &TensorProto, message: &str) -> String {
    message.trim_start_matches(&format!("tensor {:?}: ", tensor.name())).to_owned()
}

fn entry<'a>(entries: &'a [StringStringEntryProto], key: &str) -> Option<&'a str> {
    entries.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
}

/// The location, if it is one that `onnx.checker` and runtimes follow.
fn location(tensor: &TensorProto) -> Result<&str, String> {
    let location = entry(&tensor.external_data, "location")
        .ok_or("expected a location of its data, found none; name a file beside the model")?;
    let below =
        Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !below {
        return Err(format!(
            "expected a relative location without `..`, found {location:?}; move the file beside the model"
        ));
    }
    Ok(location)
}

/// Offset and length are numbers of bytes, if they are given.
fn extent(tensor: &TensorProto) -> Result<(), String> {
    for key in ["offset", "length"] {
        if let Some(text) = entry(&tensor.external_data, key).filter(|text| text.parse::<u64>().is_err()) {
            return Err(format!("expected a number of bytes as {key}, found {text:?}"));
        }
    }
    Ok(())
}

fn regular(folder: &Path, location: &str) -> Result<(), &'static str> {
    let path = folder.join(location);
    let metadata = fs::symlink_metadata(&path)
        .map_err(|_| "found no such file; put it beside the model, or allow external-missing")?;
    if metadata.is_symlink() {
        return Err("found a symbolic link, which onnx refuses; copy the file there");
    }
    if !metadata.is_file() {
        return Err("found something other than a regular file");
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) > 1 {
        return Err("found a file of several names, which onnx refuses; copy it");
    }
    let (Ok(path), Ok(folder)) = (path.canonicalize(), folder.canonicalize()) else {
        return Err("found a folder that cannot be followed");
    };
    if path.starts_with(folder) {
        Ok(())
    } else {
        Err("found that a link leads outside of the model's folder")
    }
}

fn sparse_tensors<'s>(s: &'s Subject) -> impl Iterator<Item = (String, &'s SparseTensorProto)> {
    let initializers = s.graphs().flat_map(|(scope, graph)| {
        graph.sparse_initializer.iter().map(|sparse| {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            (scope.value("sparse initializer", name), sparse)
        })
    });
    let attributes = s.nodes().flat_map(|(scope, _, index, node)| {
        let sparse = node
            .attribute
            .iter()
            .flat_map(|a| a.sparse_tensor.as_deref().into_iter().chain(&a.sparse_tensors));
        sparse.map(move |sparse| (scope.place(index), sparse))
    });
    initializers.chain(attributes)
}

fn check_sparse(s: &Subject, sparse: &SparseTensorProto) -> Result<(), String> {
    let values = sparse.values.as_ref().ok_or("expected values, found none")?;
    let part = |tensor: &TensorProto| match is_external(tensor) {
        true => location(tensor).map(|_| ()),
        false => payload(tensor),
    };
    part(values).map_err(|why| format!("of its values: {why}"))?;
    let [count] = *values.dims.as_slice() else {
        return Err(format!("expected values of one axis, found {:?}", values.dims));
    };
    if sparse.dims.is_empty() || sparse.dims.iter().any(|dim| *dim <= 0) {
        return Err(format!("expected a shape of extents above 0, found {:?}", sparse.dims));
    }
    let Some(indices) = &sparse.indices else {
        return if count == 0 {
            Ok(())
        } else {
            Err(format!("expected positions of {count} values, found none"))
        };
    };
    part(indices).map_err(|why| format!("of its positions: {why}"))?;
    let rank = sparse.dims.len();
    match *indices.dims.as_slice() {
        [n] if n == count => {}
        [n, width] if n == count && width == rank as i64 => {}
        _ => {
            return Err(format!(
                "expected positions [{count}] or [{count}, {rank}], found {:?}",
                indices.dims
            ));
        }
    }
    if indices.data_type() != i32::from(DataType::Int64) {
        let found = element_type(indices).map_or("none", |dtype| dtype.as_str_name());
        return Err(format!("expected positions of type INT64, found {found}"));
    }
    let Ok(positions) = Tensor::decode(indices, s.external).and_then(|t| t.i64s()) else {
        return Ok(()); // outside and absent: the tensor checks say so
    };
    ascending(&positions, sparse, indices.dims.len() == 2)
}

/// Positions are linear or coordinates; either way each comes after the one before.
fn ascending(positions: &[i64], sparse: &SparseTensorProto, coordinates: bool) -> Result<(), String> {
    let width = if coordinates { sparse.dims.len() } else { 1 };
    let mut before: Option<&[i64]> = None;
    for position in positions.chunks(width) {
        let within = if coordinates {
            position.iter().zip(&sparse.dims).all(|(p, dim)| (0..*dim).contains(p))
        } else {
            let size = sparse.dims.iter().try_fold(1_i64, |n, &dim| n.checked_mul(dim));
            position.iter().all(|p| *p >= 0 && size.is_none_or(|size| *p < size))
        };
        if !within {
            return Err(format!("expected positions within {:?}, found {position:?}", sparse.dims));
        }
        if before.is_some_and(|before| before >= position) {
            return Err(format!(
                "expected positions in ascending order, found {position:?} after {before:?}"
            ));
        }
        before = Some(position);
    }
    Ok(())
}
