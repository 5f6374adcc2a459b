//! Reads protobuf from a file, part by part, and seeks over the parts that are not needed.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::error::{ModelFault, OnnxError};

/// Longest name, path or other text that is kept, in bytes.
const MAX_TEXT: u64 = 4096;

/// A file and the position in it.
#[derive(Debug)]
pub(crate) struct ProtobufReader {
    file: BufReader<File>,
    position: u64,
}

/// A field: its number, and its value or the position where the value ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireField {
    pub(crate) number: u64,
    pub(crate) value: FieldValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValue {
    /// A number of variable length.
    Varint(u64),
    /// Four or eight bytes, which were skipped.
    Fixed(u64),
    /// A text, a message or a packed list, which is unread and ends at this position.
    Part(u64),
}

impl ProtobufReader {
    /// Opens a file; returns the reader and the file's length.
    pub(crate) fn open(path: &Path) -> Result<(Self, u64), OnnxError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|error| {
            OnnxError::Unreadable(format!("cannot read {}: {error}", path.display()))
        })?;
        Ok((Self { file: BufReader::new(file), position: 0 }, length))
    }

    /// The position of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn byte(&mut self) -> Result<u8, ModelFault> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.position += 1;
        Ok(byte[0])
    }

    /// Reads a number of variable length.
    pub(crate) fn varint(&mut self) -> Result<u64, ModelFault> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ModelFault::File(format!("a number at byte {} does not end", self.position)))
    }

    /// Reads the next field of a message that ends at `end`; `None` at the end.
    pub(crate) fn field(&mut self, end: u64) -> Result<Option<WireField>, ModelFault> {
        if self.position >= end {
            self.check_within(end)?;
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => FieldValue::Varint(self.varint()?),
            1 => FieldValue::Fixed(self.fixed(8, end)?),
            2 => {
                let length = self.varint()?;
                FieldValue::Part(self.part_end(length, end)?)
            }
            5 => FieldValue::Fixed(self.fixed(4, end)?),
            other => {
                return Err(ModelFault::File(format!(
                    "wire type {other} at byte {}",
                    self.position
                )));
            }
        };
        Ok(Some(WireField { number: key >> 3, value }))
    }

    fn fixed(&mut self, length: u64, end: u64) -> Result<u64, ModelFault> {
        let part = self.part_end(length, end)?;
        let mut value = 0;
        for shift in (0..length * 8).step_by(8) {
            value |= u64::from(self.byte()?) << shift;
        }
        self.skip_to(part)?;
        Ok(value)
    }

    /// The end of a part of `length` bytes that starts at the current position, inside a part that
    /// ends at `end`.
    fn part_end(&self, length: u64, end: u64) -> Result<u64, ModelFault> {
        let part = self.position.checked_add(length).filter(|part| *part <= end);
        part.ok_or_else(|| {
            let left = end.saturating_sub(self.position);
            ModelFault::File(format!(
                "a part at byte {} claims {length} bytes; {left} are left",
                self.position
            ))
        })
    }

    /// A number may extend beyond the end of the part that contains it.
    pub(crate) fn check_within(&self, end: u64) -> Result<(), ModelFault> {
        if self.position <= end {
            return Ok(());
        }
        Err(ModelFault::File(format!("a part ends at byte {end}, in the middle of what it holds")))
    }

    /// Skips everything up to a position.
    pub(crate) fn skip_to(&mut self, to: u64) -> Result<(), ModelFault> {
        self.check_within(to)?;
        match i64::try_from(to - self.position) {
            Ok(offset) => self.file.seek_relative(offset)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(to))?),
        }
        self.position = to;
        Ok(())
    }

    /// Reads the text that ends at `end`; a text longer than the limit is truncated.
    pub(crate) fn text(&mut self, end: u64) -> Result<String, ModelFault> {
        let bytes = self.bytes(end, MAX_TEXT)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads at most `most` bytes of the part that ends at `end`, and skips the rest of it.
    pub(crate) fn bytes(&mut self, end: u64, most: u64) -> Result<Vec<u8>, ModelFault> {
        self.check_within(end)?;
        let mut bytes = vec![0; usize::try_from((end - self.position).min(most)).unwrap_or(0)];
        self.file.read_exact(&mut bytes)?;
        self.position += bytes.len() as u64;
        self.skip_to(end)?;
        Ok(bytes)
    }

    /// Reads the numbers of a repeated field, packed or single.
    pub(crate) fn integers(
        &mut self,
        value: FieldValue,
        into: &mut Vec<i64>,
        most: usize,
    ) -> Result<(), ModelFault> {
        match value {
            FieldValue::Varint(number) | FieldValue::Fixed(number) => {
                into.push(number.cast_signed())
            }
            FieldValue::Part(end) => {
                while self.position < end && into.len() <= most {
                    let number = self.varint()?;
                    into.push(number.cast_signed());
                }
                self.skip_to(end)?;
            }
        }
        Ok(())
    }
}
