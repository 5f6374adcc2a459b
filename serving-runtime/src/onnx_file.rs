//! A look at a model file before ONNX Runtime reads it: whether the tensors that it declares are there, and inside its own directory.
//!
//! It walks the protobuf of the file without building it and seeks over the weights, so it costs next to nothing for a good model. It
//! does not replace ONNX Runtime's own checks; it gives a clear reason for what would otherwise cost memory or read other files.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path};

use crate::error::{LoadError, Reason};

/// Graphs in attributes of nodes in graphs: none of the known models goes beyond four.
const MAX_DEPTH: usize = 32;
/// Number of a node's field that names its operator.
const OP_TYPE: u64 = 4;
/// Names and paths in a tensor.
const MAX_TEXT: u64 = 4096;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Whether the file is all of the model: no tensor of it lies in another one.
    pub whole: bool,
    /// Whether nothing in it loops, so that the sizes of its inputs tell what a run costs.
    pub bounded: bool,
}

/// Operators that run a graph as often as their inputs say.
const LOOPS: [&str; 3] = ["Loop", "Scan", "SequenceMap"];

/// Checks the file; its external data must lie beside it.
///
/// # Errors
/// `InvalidModel`, and what is wrong with which tensor.
pub fn check(path: &Path) -> Result<Checked, LoadError> {
    let invalid = |what: String| LoadError::permanent(Reason::InvalidModel, what);
    let file = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, file) =
        file.map_err(|e| LoadError::transient(Reason::LoadFailed, format!("cannot read {}: {e}", path.display())))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut walk = Walk { file: BufReader::new(file), at: 0, directory, whole: true, bounded: true };
    let walked = walk.message(length, Kind::Model, 0).map(|()| Checked { whole: walk.whole, bounded: walk.bounded });
    walked.map_err(|e| match e {
        Wrong::File(e) => invalid(format!("not a model: the file is no ONNX protobuf, or a part of one ({e})")),
        Wrong::Model(what) => invalid(what),
    })
}

/// Messages that can hold tensors. See `onnx.proto` for the numbers of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
    Skip,
}

impl Kind {
    fn field(self, number: u64) -> Self {
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

enum Wrong {
    File(String),
    Model(String),
}

impl From<std::io::Error> for Wrong {
    fn from(e: std::io::Error) -> Self {
        Self::File(e.to_string())
    }
}

struct Walk<'a> {
    file: BufReader<File>,
    at: u64,
    directory: &'a Path,
    /// No external data so far.
    whole: bool,
    /// No loops so far.
    bounded: bool,
}

/// What one tensor says of itself.
#[derive(Debug, Default)]
struct TensorFacts {
    name: String,
    dims: Vec<i64>,
    data_type: u64,
    raw: Option<u64>,
    typed: u64,
    external: Vec<(String, String)>,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, Wrong> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.at += 1;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Wrong::File(format!("a number at byte {} does not end", self.at)))
    }

    /// The end of a part of `length` bytes that starts here, inside one that ends at `end`.
    fn part(&self, length: u64, end: u64) -> Result<u64, Wrong> {
        let part = self.at.checked_add(length).filter(|part| *part <= end);
        part.ok_or_else(|| {
            Wrong::File(format!(
                "a part at byte {} claims {length} bytes; {} are left",
                self.at,
                end.saturating_sub(self.at)
            ))
        })
    }

    /// A number may go on beyond the end of the part that it stands in.
    fn within(&self, end: u64) -> Result<(), Wrong> {
        if self.at <= end {
            return Ok(());
        }
        Err(Wrong::File(format!("a part ends at byte {end}, in the middle of what it holds")))
    }

    fn seek(&mut self, to: u64) -> Result<(), Wrong> {
        self.within(to)?;
        match i64::try_from(to - self.at) {
            Ok(offset) => self.file.seek_relative(offset)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(to))?),
        }
        self.at = to;
        Ok(())
    }

    /// Field number and, for fields with a length, where it ends. Numbers are skipped unless `number` takes them.
    fn message(&mut self, end: u64, kind: Kind, depth: usize) -> Result<(), Wrong> {
        if depth > MAX_DEPTH {
            return Err(Wrong::Model(format!("the model nests its graphs more than {MAX_DEPTH} deep")));
        }
        if kind == Kind::Tensor {
            return self.tensor(end);
        }
        while self.at < end {
            let key = self.varint()?;
            let inner = kind.field(key >> 3);
            match self.value(key & 7, end)? {
                Some(part) if kind == Kind::Node && key >> 3 == OP_TYPE => {
                    self.bounded &= !LOOPS.contains(&self.text(part)?.as_str());
                }
                Some(part) if inner == Kind::Skip => self.seek(part)?,
                Some(part) => self.message(part, inner, depth + 1)?,
                None => {}
            }
        }
        self.within(end)
    }

    /// Reads over a value; one with a length is left unread and its end given.
    fn value(&mut self, wire: u64, end: u64) -> Result<Option<u64>, Wrong> {
        match wire {
            0 => drop(self.varint()?),
            1 => self.seek(self.part(8, end)?)?,
            2 => {
                let length = self.varint()?;
                return self.part(length, end).map(Some);
            }
            5 => self.seek(self.part(4, end)?)?,
            other => return Err(Wrong::File(format!("wire type {other} at byte {}", self.at))),
        }
        Ok(None)
    }

    fn tensor(&mut self, end: u64) -> Result<(), Wrong> {
        let mut facts = TensorFacts::default();
        while self.at < end {
            let key = self.varint()?;
            let (number, wire) = (key >> 3, key & 7);
            if wire == 0 && matches!(number, 1 | 2) {
                let value = self.varint()?;
                if number == 1 {
                    facts.dims.push(value.cast_signed())
                } else {
                    facts.data_type = value
                }
                continue;
            }
            let from = self.at;
            let Some(part) = self.value(wire, end)? else {
                facts.typed += self.at - from;
                continue;
            };
            match number {
                1 => {
                    while self.at < part {
                        let value = self.varint()?;
                        facts.dims.push(value.cast_signed());
                    }
                }
                4..=7 | 10 | 11 => facts.typed += part - from,
                8 => facts.name = self.text(part)?,
                9 => facts.raw = Some(part - self.at),
                13 => facts.external.push(self.entry(part)?),
                _ => {}
            }
            self.seek(part)?;
            if facts.dims.len() > 64 || facts.external.len() > 64 {
                return Err(Wrong::Model(format!("tensor {:?} has more than 64 dimensions", facts.name)));
            }
        }
        self.within(end)?;
        self.whole &= facts.external.is_empty();
        facts.check(self.directory).map_err(Wrong::Model)
    }

    fn text(&mut self, end: u64) -> Result<String, Wrong> {
        self.within(end)?;
        let mut bytes = vec![0; usize::try_from((end - self.at).min(MAX_TEXT)).unwrap_or(0)];
        self.file.read_exact(&mut bytes)?;
        self.at += bytes.len() as u64;
        self.seek(end)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A key and its value.
    fn entry(&mut self, end: u64) -> Result<(String, String), Wrong> {
        let (mut name, mut value) = (String::new(), String::new());
        while self.at < end {
            let key = self.varint()?;
            match self.value(key & 7, end)? {
                Some(part) if key >> 3 == 1 => name = self.text(part)?,
                Some(part) if key >> 3 == 2 => value = self.text(part)?,
                Some(part) => self.seek(part)?,
                None => {}
            }
        }
        self.within(end)?;
        Ok((name, value))
    }
}

impl TensorFacts {
    fn check(&self, directory: &Path) -> Result<(), String> {
        let name = &self.name;
        let count = self.dims.iter().try_fold(1_u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
        let count = count.ok_or_else(|| format!("tensor {name:?} has an impossible shape {:?}", self.dims))?;
        if !self.external.is_empty() {
            return self.check_external(directory);
        }
        if let (Some(raw), Some(width)) = (self.raw, width(self.data_type)) {
            return match count.checked_mul(width) == Some(raw) {
                true => Ok(()),
                false => Err(format!("tensor {name:?} of shape {:?} carries {raw} bytes of raw data", self.dims)),
            };
        }
        // Two bits are the least that an element of any type takes.
        let carried = self.raw.unwrap_or(0).saturating_add(self.typed);
        if count.div_ceil(4) > carried {
            return Err(format!("tensor {name:?} declares {count} elements and carries {carried} bytes"));
        }
        Ok(())
    }

    fn check_external(&self, directory: &Path) -> Result<(), String> {
        let name = &self.name;
        let get = |key: &str| self.external.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let location = get("location").unwrap_or_default();
        let inside = !location.is_empty()
            && Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let outside = || {
            format!(
                "tensor {name:?} wants its data from {location:?}, outside the model's directory; save the model with its data beside it, or in one file"
            )
        };
        if !inside {
            return Err(outside());
        }
        let missing =
            |e: std::io::Error| format!("tensor {name:?} wants its data from {location:?}, which cannot be read: {e}");
        let file = directory.join(location).canonicalize().map_err(missing)?;
        if !file.starts_with(directory.canonicalize().map_err(missing)?) {
            return Err(outside());
        }
        let size = file.metadata().map_err(missing)?.len();
        let number = |key: &str| get(key).map_or(Some(0), |v| v.parse::<u64>().ok());
        let end = number("offset").zip(number("length")).and_then(|(offset, length)| offset.checked_add(length));
        match end {
            Some(end) if end <= size => Ok(()),
            _ => Err(format!("tensor {name:?} wants more of {location:?} than its {size} bytes")),
        }
    }
}

/// Bytes of an element in raw data, by `TensorProto.DataType`; none for strings and for those that share bytes.
const fn width(data_type: u64) -> Option<u64> {
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

    /// A model whose graph has this one initializer.
    fn verdict(tensor: &[u8]) -> Result<bool, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("weights"), [0; 16]).unwrap();
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, field(7, &field(5, tensor))).unwrap();
        check(&path).map(|found| found.whole).map_err(|e| e.message)
    }

    fn external(location: &str, length: &str) -> Vec<u8> {
        let entry = |k: &str, v: &str| field(13, &[field(1, k.as_bytes()), field(2, v.as_bytes())].concat());
        [vec![8, 4, 16, 1], entry("location", location), entry("length", length)].concat()
    }

    #[test]
    fn tensors_must_be_there() {
        // dims [4], FLOAT, sixteen bytes.
        assert_eq!(verdict(&[&[8, 4, 16, 1][..], &field(9, &[0; 16])].concat()), Ok(true));
        assert!(verdict(&[&[8, 4, 16, 1][..], &field(9, &[0; 12])].concat()).unwrap_err().contains("12 bytes"));
        // dims [2^35] and nothing.
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
            assert!(verdict(&external(location, "1")).unwrap_err().contains("outside"), "{location}");
        }
        assert!(verdict(&external("nothing", "1")).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn the_committed_models_pass_and_noise_does_not() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for entry in std::fs::read_dir(models).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let found = check(&path).unwrap();
                let slow = path.file_stem().is_some_and(|name| name == "slow");
                assert_eq!((found.whole, found.bounded), (true, !slow), "{}", path.display());
                let cut = tempfile::NamedTempFile::new().unwrap();
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(cut.path(), &bytes[..bytes.len() - 3]).unwrap();
                assert!(check(cut.path()).is_err());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_ends_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), field(7, &field(5, &bytes))).unwrap();
            let _ = check(file.path());
            std::fs::write(file.path(), bytes).unwrap();
            let _ = check(file.path());
        }
    }
}
