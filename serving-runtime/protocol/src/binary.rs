//! Tensors as raw little-endian bytes.

use half::f16;
use slipway_runtime_engine::tensor::{DataType, TensorData};

/// Decodes exactly `count` elements.
pub fn decode_binary(bytes: &[u8], datatype: DataType, count: usize) -> Result<TensorData, String> {
    if let Some(width) = datatype.width() {
        let want = count.checked_mul(width);
        if want != Some(bytes.len()) {
            return Err(format!(
                "has {} bytes; {count} elements of {} need {want:?}",
                bytes.len(),
                datatype.name()
            ));
        }
    }
    macro_rules! fixed {
        ($variant:ident, $ty:ty) => {{
            const WIDTH: usize = size_of::<$ty>();
            let values = bytes.chunks_exact(WIDTH).map(|c| {
                let mut raw = [0; WIDTH];
                raw.copy_from_slice(c);
                <$ty>::from_le_bytes(raw)
            });
            TensorData::$variant(values.collect())
        }};
    }
    Ok(match datatype {
        DataType::Bool => match bytes.iter().position(|b| *b > 1) {
            Some(at) => return Err(format!("byte {at} is {}; a BOOL is 0 or 1", bytes[at])),
            None => TensorData::Bool(bytes.iter().map(|b| *b == 1).collect()),
        },
        DataType::U8 => TensorData::U8(bytes.to_vec()),
        DataType::U16 => fixed!(U16, u16),
        DataType::U32 => fixed!(U32, u32),
        DataType::U64 => fixed!(U64, u64),
        DataType::I8 => fixed!(I8, i8),
        DataType::I16 => fixed!(I16, i16),
        DataType::I32 => fixed!(I32, i32),
        DataType::I64 => fixed!(I64, i64),
        DataType::F16 => fixed!(F16, f16),
        DataType::F32 => fixed!(F32, f32),
        DataType::F64 => fixed!(F64, f64),
        DataType::Bytes => TensorData::Bytes(decode_strings(bytes, count)?),
    })
}

/// Decodes strings: each is its length in four bytes, then its bytes.
fn decode_strings(mut bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
    let mut out = Vec::with_capacity(count.min(bytes.len() / 4));
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let at = out.len();
        let (text, rest) = rest.split_at_checked(length).ok_or_else(|| {
            format!("element {at} claims {length} bytes; {} are left", rest.len())
        })?;
        let text = std::str::from_utf8(text)
            .map_err(|_| format!("element {at} is not UTF-8, and ONNX strings must be"))?;
        if text.contains('\0') {
            return Err(format!("element {at} holds a zero byte"));
        }
        out.push(text.to_owned());
        bytes = rest;
    }
    if out.len() != count || !bytes.is_empty() {
        return Err(format!(
            "holds {} elements and {} bytes more; the shape needs {count} elements",
            out.len(),
            bytes.len()
        ));
    }
    Ok(out)
}

/// Appends the raw bytes of `data`.
pub fn encode_binary(data: &TensorData, out: &mut Vec<u8>) {
    macro_rules! fixed {
        ($v:expr) => {
            for x in $v {
                out.extend_from_slice(&x.to_le_bytes());
            }
        };
    }
    match data {
        TensorData::Bool(v) => out.extend(v.iter().map(|b| u8::from(*b))),
        TensorData::U8(v) => out.extend_from_slice(v),
        TensorData::U16(v) => fixed!(v),
        TensorData::U32(v) => fixed!(v),
        TensorData::U64(v) => fixed!(v),
        TensorData::I8(v) => fixed!(v),
        TensorData::I16(v) => fixed!(v),
        TensorData::I32(v) => fixed!(v),
        TensorData::I64(v) => fixed!(v),
        TensorData::F16(v) => fixed!(v),
        TensorData::F32(v) => fixed!(v),
        TensorData::F64(v) => fixed!(v),
        TensorData::Bytes(v) => {
            for s in v {
                out.extend_from_slice(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_le_bytes());
                out.extend_from_slice(s.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_datatype_round_trips() {
        let samples = [
            TensorData::Bool(vec![true, false]),
            TensorData::U8(vec![0, 255]),
            TensorData::U16(vec![1, u16::MAX]),
            TensorData::U32(vec![1, u32::MAX]),
            TensorData::U64(vec![1, u64::MAX]),
            TensorData::I8(vec![-1, 1]),
            TensorData::I16(vec![i16::MIN, 1]),
            TensorData::I32(vec![i32::MIN, 1]),
            TensorData::I64(vec![i64::MIN, 1]),
            TensorData::F16(vec![f16::from_f32(1.5), f16::ZERO]),
            TensorData::F32(vec![1.5, f32::INFINITY]),
            TensorData::F64(vec![1.5, f64::MIN]),
            TensorData::Bytes(vec!["é".into(), String::new()]),
        ];
        for data in samples {
            let mut raw = Vec::new();
            encode_binary(&data, &mut raw);
            assert_eq!(decode_binary(&raw, data.datatype(), 2).unwrap(), data);
            assert!(decode_binary(&raw, data.datatype(), 3).is_err());
            raw.push(7);
            assert!(decode_binary(&raw, data.datatype(), 2).is_err());
        }
        assert!(decode_binary(&[2], DataType::Bool, 1).is_err());
        assert!(
            decode_binary(&[1, 0, 0, 0, 0xff], DataType::Bytes, 1).unwrap_err().contains("UTF-8")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), count in any::<usize>()) {
            for d in DataType::ALL {
                if let Ok(data) = decode_binary(&bytes, d, count) {
                    prop_assert_eq!(data.len(), count);
                }
            }
        }
    }
}
