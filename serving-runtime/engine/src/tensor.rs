//! Tensors in memory: a datatype, a shape and a flat vector of values.

use half::f16;

/// The datatypes of the Open Inference Protocol that this server supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
    Bytes,
}

impl DataType {
    /// All datatypes in the protocol's order.
    pub const ALL: [DataType; 13] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bytes,
    ];

    /// The name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::I8 => "INT8",
            Self::I16 => "INT16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::F16 => "FP16",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes of one element in a binary tensor; `None` for BYTES, whose elements carry their own
    /// length.
    pub const fn width(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 | Self::F16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// The values of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    Bool(Vec<bool>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<String>),
}

impl TensorData {
    /// `n` zeros (empty strings for BYTES).
    pub fn zeros(datatype: DataType, n: usize) -> Self {
        match datatype {
            DataType::Bool => Self::Bool(vec![false; n]),
            DataType::U8 => Self::U8(vec![0; n]),
            DataType::U16 => Self::U16(vec![0; n]),
            DataType::U32 => Self::U32(vec![0; n]),
            DataType::U64 => Self::U64(vec![0; n]),
            DataType::I8 => Self::I8(vec![0; n]),
            DataType::I16 => Self::I16(vec![0; n]),
            DataType::I32 => Self::I32(vec![0; n]),
            DataType::I64 => Self::I64(vec![0; n]),
            DataType::F16 => Self::F16(vec![f16::ZERO; n]),
            DataType::F32 => Self::F32(vec![0.0; n]),
            DataType::F64 => Self::F64(vec![0.0; n]),
            DataType::Bytes => Self::Bytes(vec![String::new(); n]),
        }
    }

    pub const fn datatype(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::U8(_) => DataType::U8,
            Self::U16(_) => DataType::U16,
            Self::U32(_) => DataType::U32,
            Self::U64(_) => DataType::U64,
            Self::I8(_) => DataType::I8,
            Self::I16(_) => DataType::I16,
            Self::I32(_) => DataType::I32,
            Self::I64(_) => DataType::I64,
            Self::F16(_) => DataType::F16,
            Self::F32(_) => DataType::F32,
            Self::F64(_) => DataType::F64,
            Self::Bytes(_) => DataType::Bytes,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        macro_rules! length {
            ($($variant:ident),*) => {
                match self { $(Self::$variant(v) => v.len(),)* }
            };
        }
        length!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, Bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the elements in `start..end`; indices out of bounds are left out.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let end = end.min(self.len());
        let start = start.min(end);
        macro_rules! copy {
            ($($variant:ident),*) => {
                match self { $(Self::$variant(v) => Self::$variant(v[start..end].to_vec()),)* }
            };
        }
        copy!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, Bytes)
    }

    /// Appends `other`; returns `false` and appends nothing when the datatypes differ.
    pub fn append(&mut self, other: &Self) -> bool {
        macro_rules! append {
            ($($variant:ident),*) => {
                match (self, other) {
                    $((Self::$variant(a), Self::$variant(b)) => { a.extend_from_slice(b); true })*
                    _ => false,
                }
            };
        }
        append!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, Bytes)
    }

    /// Whether an element is NaN.
    pub fn has_nan(&self) -> bool {
        match self {
            Self::F16(v) => v.iter().any(|x| x.is_nan()),
            Self::F32(v) => v.iter().any(|x| x.is_nan()),
            Self::F64(v) => v.iter().any(|x| x.is_nan()),
            _ => false,
        }
    }

    /// Number of elements that are NaN or infinite.
    pub fn count_non_finite(&self) -> usize {
        match self {
            Self::F16(v) => v.iter().filter(|x| !x.is_finite()).count(),
            Self::F32(v) => v.iter().filter(|x| !x.is_finite()).count(),
            Self::F64(v) => v.iter().filter(|x| !x.is_finite()).count(),
            _ => 0,
        }
    }

    /// The index of the first NaN or infinite element.
    pub fn first_non_finite(&self) -> Option<usize> {
        match self {
            Self::F16(v) => v.iter().position(|x| !x.is_finite()),
            Self::F32(v) => v.iter().position(|x| !x.is_finite()),
            Self::F64(v) => v.iter().position(|x| !x.is_finite()),
            _ => None,
        }
    }
}

/// Values with a shape, whose product is the number of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub data: TensorData,
}

impl Tensor {
    pub fn zeros(datatype: DataType, shape: Vec<usize>) -> Self {
        let n = shape.iter().product();
        Self { shape, data: TensorData::zeros(datatype, n) }
    }

    /// Length of the first axis; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Rows `from..from + count` along the first axis.
    pub fn slice_rows(&self, from: usize, count: usize) -> Self {
        let width: usize = self.shape.iter().skip(1).product();
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = count;
        }
        Self { shape, data: self.data.slice(from * width, (from + count) * width) }
    }

    /// Size of the values in memory, in bytes.
    pub fn bytes(&self) -> usize {
        match (&self.data, self.data.datatype().width()) {
            (_, Some(width)) => self.data.len() * width,
            (TensorData::Bytes(texts), None) => {
                texts.iter().map(|text| text.len() + size_of::<String>()).sum()
            }
            (_, None) => 0,
        }
    }

    /// Stacks tensors of equal trailing shape along the first axis. `None` when there are no
    /// tensors or their datatypes or shapes differ.
    pub fn stack<'a>(mut parts: impl Iterator<Item = &'a Tensor>) -> Option<Self> {
        let mut whole = parts.next()?.clone();
        for part in parts {
            if whole.shape.get(1..) != part.shape.get(1..) || !whole.data.append(&part.data) {
                return None;
            }
            *whole.shape.first_mut()? += part.rows();
        }
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for d in DataType::ALL {
            assert_eq!(DataType::parse(d.name()), Some(d));
            assert_eq!(TensorData::zeros(d, 3).datatype(), d);
        }
        assert_eq!(DataType::parse("FLOAT"), None);
    }

    #[test]
    fn stacking_and_slicing_are_inverse() {
        let a = Tensor { shape: vec![2, 3], data: TensorData::I32((0..6).collect()) };
        let b = Tensor { shape: vec![1, 3], data: TensorData::I32(vec![6, 7, 8]) };
        let whole = Tensor::stack([&a, &b].into_iter()).unwrap();
        assert_eq!(whole.shape, [3, 3]);
        assert_eq!(whole.slice_rows(0, 2), a);
        assert_eq!(whole.slice_rows(2, 1), b);
        let other = Tensor { shape: vec![1, 2], data: TensorData::I32(vec![1, 2]) };
        assert_eq!(Tensor::stack([&a, &other].into_iter()), None);
    }

    #[test]
    fn non_finite_values_are_found() {
        assert_eq!(TensorData::F32(vec![1.0, f32::NAN]).first_non_finite(), Some(1));
        assert_eq!(TensorData::F64(vec![f64::INFINITY]).first_non_finite(), Some(0));
        assert_eq!(TensorData::F64(vec![f64::INFINITY, 0.0, f64::NAN]).count_non_finite(), 2);
        assert_eq!(TensorData::I64(vec![1]).first_non_finite(), None);
    }
}
