//! Checks a model file before ONNX Runtime reads it: whether the data of the declared tensors
//! exists and lies inside the model's directory.
//!
//! The check traverses the protobuf of the file without building it in memory and seeks over the
//! weights, so it costs almost nothing for a valid model. It does not replace ONNX Runtime's own
//! checks; it gives a clear reason for files that would otherwise use up memory or read other
//! files.

use std::path::{Component, Path};

use crate::error::{ModelFault, OnnxError};
use crate::wire::{FieldValue, ProtobufReader};

/// Largest depth of graphs in attributes of nodes in graphs: no known model exceeds four.
const MAX_DEPTH: usize = 32;
/// Largest number of dimensions of a tensor, and of entries that describe where its data is.
const MAX_ENTRIES: usize = 64;
/// Largest number of files next to a model.
const MAX_FILES: usize = 1024;
/// The number of the field of a node that names its operator.
const OP_TYPE: u64 = 4;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Files next to the model that hold data of its tensors, relative to its directory, without
    /// repetition.
    pub external: Vec<String>,
    /// Whether the model has no loops, so that the sizes of its inputs determine the cost of a
    /// run.
    pub bounded: bool,
}

impl CheckReport {
    /// Whether the file contains the whole model: no tensor has its data in another file.
    pub fn is_self_contained(&self) -> bool {
        self.external.is_empty()
    }
}

/// Operators that run a graph as often as their inputs determine.
const LOOP_OPERATORS: [&str; 3] = ["Loop", "Scan", "SequenceMap"];

/// Checks the file; its external data must be in its directory.
///
/// # Errors
/// What is wrong with which tensor.
pub fn check_model(path: &Path) -> Result<CheckReport, OnnxError> {
    walk_file(path, Some(path.parent().unwrap_or(Path::new("."))))
}

/// The files next to the model that hold data of its tensors, relative to its directory, without
/// repetition and in the order of the model. They need not exist yet: the code that fetches a model
/// uses this list.
///
/// # Errors
/// What is wrong with the file; also a name that leads out of the directory.
pub fn external_files(path: &Path) -> Result<Vec<String>, OnnxError> {
    walk_file(path, None).map(|found| found.external)
}

/// Traverses the file. Without `directory`, files next to the model are only listed and not
/// checked.
fn walk_file(path: &Path, directory: Option<&Path>) -> Result<CheckReport, OnnxError> {
    let (reader, length) = ProtobufReader::open(path)?;
    let found = CheckReport { external: vec![], bounded: true };
    let mut walk = TensorWalk { reader, directory, report: found };
    walk.message(length, MessageKind::Model, 0)?;
    Ok(walk.report)
}

/// Messages that can hold tensors. `onnx.proto` has the numbers of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
    Skip,
}

impl MessageKind {
    fn child_kind(self, number: u64) -> Self {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Node, 5) => Self::Attribute,
            _ => Self::Skip,
        }
    }
}

struct TensorWalk<'a> {
    reader: ProtobufReader,
    directory: Option<&'a Path>,
    report: CheckReport,
}

/// What the file declares about one tensor.
#[derive(Debug, Default)]
struct TensorFacts {
    name: String,
    dims: Vec<i64>,
    data_type: u64,
    raw_bytes: Option<u64>,
    typed_bytes: u64,
    external: Vec<(String, String)>,
}

impl TensorWalk<'_> {
    fn message(&mut self, end: u64, kind: MessageKind, depth: usize) -> Result<(), ModelFault> {
        if depth > MAX_DEPTH {
            return Err(ModelFault::Model(format!(
                "the model nests its graphs more than {MAX_DEPTH} deep"
            )));
        }
        if kind == MessageKind::Tensor {
            return self.tensor(end);
        }
        while let Some(field) = self.reader.field(end)? {
            let FieldValue::Part(part) = field.value else { continue };
            match kind.child_kind(field.number) {
                MessageKind::Skip if kind == MessageKind::Node && field.number == OP_TYPE => {
                    self.report.bounded &=
                        !LOOP_OPERATORS.contains(&self.reader.text(part)?.as_str());
                }
                MessageKind::Skip => self.reader.skip_to(part)?,
                inner => self.message(part, inner, depth + 1)?,
            }
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> Result<(), ModelFault> {
        let mut facts = TensorFacts::default();
        loop {
            let from = self.reader.position();
            let Some(field) = self.reader.field(end)? else { break };
            match (field.number, field.value) {
                (1, value) => self.reader.integers(value, &mut facts.dims, MAX_ENTRIES)?,
                (2, FieldValue::Varint(number)) => facts.data_type = number,
                (8, FieldValue::Part(part)) => facts.name = self.reader.text(part)?,
                (9, FieldValue::Part(part)) => {
                    facts.raw_bytes = Some(part - self.reader.position())
                }
                (13, FieldValue::Part(part)) => {
                    let entry = self.entry(part)?;
                    facts.external.push(entry);
                }
                (4..=7 | 10 | 11, FieldValue::Part(part)) => {
                    facts.typed_bytes += part - self.reader.position()
                }
                (_, FieldValue::Varint(_) | FieldValue::Fixed(_)) => {
                    facts.typed_bytes += self.reader.position() - from
                }
                _ => {}
            }
            if let FieldValue::Part(part) = field.value {
                self.reader.skip_to(part)?;
            }
            if facts.dims.len() > MAX_ENTRIES || facts.external.len() > MAX_ENTRIES {
                let name = &facts.name;
                return Err(ModelFault::Model(format!(
                    "tensor {name:?} has more than {MAX_ENTRIES} dimensions"
                )));
            }
        }
        let location = facts.check(self.directory).map_err(ModelFault::Model)?;
        self.report
            .external
            .extend(location.filter(|location| !self.report.external.contains(location)));
        if self.report.external.len() > MAX_FILES {
            return Err(ModelFault::Model(format!(
                "the model keeps its tensors in more than {MAX_FILES} files"
            )));
        }
        Ok(())
    }

    /// A key and its value.
    fn entry(&mut self, end: u64) -> Result<(String, String), ModelFault> {
        let (mut name, mut value) = (String::new(), String::new());
        while let Some(field) = self.reader.field(end)? {
            match (field.number, field.value) {
                (1, FieldValue::Part(part)) => name = self.reader.text(part)?,
                (2, FieldValue::Part(part)) => value = self.reader.text(part)?,
                (_, FieldValue::Part(part)) => self.reader.skip_to(part)?,
                _ => {}
            }
        }
        Ok((name, value))
    }
}

impl TensorFacts {
    /// The file next to the model that holds the tensor's data, if there is one.
    fn check(&self, directory: Option<&Path>) -> Result<Option<String>, String> {
        let name = &self.name;
        let count = self.dims.iter().try_fold(1_u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
        let count = count
            .ok_or_else(|| format!("tensor {name:?} has an impossible shape {:?}", self.dims))?;
        if !self.external.is_empty() {
            return self.check_external(directory).map(Some);
        }
        if let (Some(raw), Some(width)) = (self.raw_bytes, element_bytes(self.data_type)) {
            return match count.checked_mul(width) == Some(raw) {
                true => Ok(None),
                false => Err(format!(
                    "tensor {name:?} of shape {:?} carries {raw} bytes of raw data",
                    self.dims
                )),
            };
        }
        // An element of any type takes at least two bits.
        let carried = self.raw_bytes.unwrap_or(0).saturating_add(self.typed_bytes);
        if count.div_ceil(4) > carried {
            return Err(format!(
                "tensor {name:?} declares {count} elements and carries {carried} bytes"
            ));
        }
        Ok(None)
    }

    fn check_external(&self, directory: Option<&Path>) -> Result<String, String> {
        let name = &self.name;
        let get = |key: &str| self.external.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let location = get("location").unwrap_or_default();
        let inside = !location.is_empty()
            && Path::new(location)
                .components()
                .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let outside = || {
            format!(
                "tensor {name:?} wants its data from {location:?}, outside the model's directory; save the model with its data beside it, or in one file"
            )
        };
        if !inside {
            return Err(outside());
        }
        let Some(directory) = directory else { return Ok(normalize_location(location)) };
        let missing = |e: std::io::Error| {
            format!("tensor {name:?} wants its data from {location:?}, which cannot be read: {e}")
        };
        let file = directory.join(location).canonicalize().map_err(missing)?;
        if !file.starts_with(directory.canonicalize().map_err(missing)?) {
            return Err(outside());
        }
        let size = file.metadata().map_err(missing)?.len();
        let number = |key: &str| get(key).map_or(Some(0), |v| v.parse::<u64>().ok());
        let end = number("offset")
            .zip(number("length"))
            .and_then(|(offset, length)| offset.checked_add(length));
        match end {
            Some(end) if end <= size => Ok(normalize_location(location)),
            _ => Err(format!("tensor {name:?} wants more of {location:?} than its {size} bytes")),
        }
    }
}

/// A relative path without its `.` components, so that each file has one name.
fn normalize_location(location: &str) -> String {
    let parts = Path::new(location).components().filter(|part| !matches!(part, Component::CurDir));
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Bytes of an element in raw data, by `TensorProto.DataType`; `None` for strings and for types
/// that pack several elements into a byte.
const fn element_bytes(data_type: u64) -> Option<u64> {
    match data_type {
        2 | 3 | 9 | 17..=20 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 | 14 => Some(8),
        15 => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = body.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(body);
        out
    }

    /// Checks a model whose graph has this one initializer.
    fn verdict(tensor: &[u8]) -> Result<bool, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("weights"), [0; 16]).unwrap();
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, field(7, &field(5, tensor))).unwrap();
        check_model(&path).map(|found| found.is_self_contained()).map_err(|error| error.to_string())
    }

    fn external(location: &str, length: &str) -> Vec<u8> {
        let entry = |k: &str, v: &str| {
            field(13, &[field(1, k.as_bytes()), field(2, v.as_bytes())].concat())
        };
        [vec![8, 4, 16, 1], entry("location", location), entry("length", length)].concat()
    }

    #[test]
    fn tensors_must_be_there() {
        // dims [4], FLOAT, sixteen bytes.
        assert_eq!(verdict(&[&[8, 4, 16, 1][..], &field(9, &[0; 16])].concat()), Ok(true));
        assert!(
            verdict(&[&[8, 4, 16, 1][..], &field(9, &[0; 12])].concat())
                .unwrap_err()
                .contains("12 bytes")
        );
        // dims [2^35] without data.
        let huge = verdict(&[8, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 16, 1]).unwrap_err();
        assert!(huge.contains("declares 34359738368 elements and carries 0"), "{huge}");
        // dims [-1].
        let negative = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert!(verdict(&negative).unwrap_err().contains("impossible shape"));
    }

    #[test]
    fn external_data_stays_beside_the_model() {
        assert_eq!(verdict(&external("weights", "16")), Ok(false));
        assert!(verdict(&external("weights", "17")).unwrap_err().contains("more of"));
        for location in ["/etc/passwd", "../weights", "a/../../weights", ""] {
            assert!(
                verdict(&external(location, "1")).unwrap_err().contains("outside"),
                "{location}"
            );
        }
        assert!(verdict(&external("nothing", "1")).unwrap_err().contains("cannot be read"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        let named = |tensors: &[Vec<u8>]| {
            let graph: Vec<u8> = tensors.iter().flat_map(|tensor| field(5, tensor)).collect();
            std::fs::write(&path, field(7, &graph)).unwrap();
            external_files(&path).map_err(|error| error.to_string())
        };
        let two = [external("./a/w", "1"), external("a/w", "1"), external("nothing", "1")];
        assert_eq!(named(&two), Ok(vec!["a/w".to_owned(), "nothing".to_owned()]));
        assert!(named(&[external("../w", "1")]).unwrap_err().contains("outside"));
    }

    #[test]
    fn the_committed_models_pass_and_noise_does_not() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../serving-runtime/tests/models");
        for entry in std::fs::read_dir(models).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let found = check_model(&path).unwrap();
                let slow = path.file_stem().is_some_and(|name| name == "slow");
                assert_eq!(
                    (found.is_self_contained(), found.bounded),
                    (true, !slow),
                    "{}",
                    path.display()
                );
                let cut = tempfile::NamedTempFile::new().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(cut.path(), &bytes[..bytes.len() - 3]).unwrap();
                assert!(check_model(cut.path()).is_err());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_ends_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), field(7, &field(5, &bytes))).unwrap();
            let _ = check_model(file.path());
            std::fs::write(file.path(), bytes).unwrap();
            let _ = check_model(file.path());
        }
    }
}
