//! Parses the `data` of an input in JSON, nested or flat, directly into a typed vector.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use slipway_runtime_engine::tensor::{DataType, TensorData};

use crate::json::without_position;

/// An element type that can be parsed from JSON.
trait Element: Sized {
    const NAME: &'static str;
    fn unsigned(v: u64) -> Option<Self> {
        let _ = v;
        None
    }
    fn signed(v: i64) -> Option<Self> {
        let _ = v;
        None
    }
    fn float(v: f64) -> Option<Self> {
        let _ = v;
        None
    }
    fn boolean(v: bool) -> Option<Self> {
        let _ = v;
        None
    }
    fn text(v: &str) -> Option<Self> {
        let _ = v;
        None
    }
    /// The value for a missing element (`null`).
    fn missing() -> Option<Self> {
        None
    }
}

macro_rules! integer {
    ($($ty:ty => $name:literal),*) => {
        $(impl Element for $ty {
            const NAME: &'static str = $name;
            fn unsigned(v: u64) -> Option<Self> {
                Self::try_from(v).ok()
            }
            fn signed(v: i64) -> Option<Self> {
                Self::try_from(v).ok()
            }
            // Languages with a single number type write 3 as 3.0; up to 2^53 that is exact.
            #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
            fn float(v: f64) -> Option<Self> {
                const EXACT: f64 = 9_007_199_254_740_992.0;
                (v.fract() == 0.0 && v.abs() <= EXACT).then(|| Self::try_from(v as i64).ok()).flatten()
            }
        })*
    };
}
integer!(u8 => "a UINT8", u16 => "a UINT16", u32 => "a UINT32", u64 => "a UINT64", i8 => "an INT8", i16 => "an INT16",
    i32 => "an INT32", i64 => "an INT64");

impl Element for f64 {
    const NAME: &'static str = "an FP64";
    #[allow(clippy::cast_precision_loss, reason = "a JSON number is read as the nearest float")]
    fn unsigned(v: u64) -> Option<Self> {
        Some(v as Self)
    }
    #[allow(clippy::cast_precision_loss, reason = "a JSON number is read as the nearest float")]
    fn signed(v: i64) -> Option<Self> {
        Some(v as Self)
    }
    fn float(v: f64) -> Option<Self> {
        Some(v)
    }
    fn missing() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for f32 {
    const NAME: &'static str = "an FP32";
    #[allow(clippy::cast_precision_loss, reason = "a JSON number is read as the nearest float")]
    fn unsigned(v: u64) -> Option<Self> {
        Some(v as Self)
    }
    #[allow(clippy::cast_precision_loss, reason = "a JSON number is read as the nearest float")]
    fn signed(v: i64) -> Option<Self> {
        Some(v as Self)
    }
    #[allow(clippy::cast_possible_truncation, reason = "checked to be finite afterwards")]
    fn float(v: f64) -> Option<Self> {
        Some(v as Self).filter(|x| x.is_finite())
    }
    fn missing() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for bool {
    const NAME: &'static str = "a BOOL";
    fn boolean(v: bool) -> Option<Self> {
        Some(v)
    }
}

impl Element for String {
    const NAME: &'static str = "a BYTES (string)";
    // ONNX Runtime receives strings that end at the first zero byte.
    fn text(v: &str) -> Option<Self> {
        (!v.contains('\0')).then(|| v.to_owned())
    }
}

/// Parses the data of one input whose shape has `count` elements. The error names the element.
pub(super) fn parse_data(
    raw: &RawValue,
    datatype: DataType,
    shape: &[usize],
    count: usize,
) -> Result<TensorData, String> {
    macro_rules! typed {
        ($variant:ident) => {
            values(raw, shape, count).map(TensorData::$variant)
        };
    }
    match datatype {
        DataType::Bool => typed!(Bool),
        DataType::U8 => typed!(U8),
        DataType::U16 => typed!(U16),
        DataType::U32 => typed!(U32),
        DataType::U64 => typed!(U64),
        DataType::I8 => typed!(I8),
        DataType::I16 => typed!(I16),
        DataType::I32 => typed!(I32),
        DataType::I64 => typed!(I64),
        DataType::F32 => typed!(F32),
        DataType::F64 => typed!(F64),
        DataType::Bytes => typed!(Bytes),
        DataType::F16 => Err("FP16 has no form in JSON; send it as a binary tensor".into()),
    }
}

fn values<T: Element>(raw: &RawValue, shape: &[usize], count: usize) -> Result<Vec<T>, String> {
    // The length of the text bounds the number of elements, so a wrong shape cannot reserve memory.
    let mut out = Vec::with_capacity(count.min(raw.get().len() / 2 + 1));
    let level = NestingLevel { out: &mut out, shape, depth: 0, count };
    level
        .deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
        .map_err(|e| without_position(&e))?;
    if out.len() < count {
        return Err(format!("has {} elements; the shape {shape:?} needs {count}", out.len()));
    }
    Ok(out)
}

/// One nesting level: either a value or an array of the next level.
struct NestingLevel<'a, T> {
    out: &'a mut Vec<T>,
    shape: &'a [usize],
    depth: usize,
    count: usize,
}

impl<T: Element> NestingLevel<'_, T> {
    fn push<E: serde::de::Error>(
        self,
        value: Option<T>,
        shown: impl fmt::Display,
    ) -> Result<bool, E> {
        let at = self.out.len();
        if self.depth == 0 {
            return Err(E::custom("must be an array"));
        }
        let Some(value) = value else {
            return Err(E::custom(format!("element {at}: {shown} is not {}", T::NAME)));
        };
        if at >= self.count {
            return Err(E::custom(format!(
                "has more than the {} elements of shape {:?}",
                self.count, self.shape
            )));
        }
        self.out.push(value);
        Ok(false)
    }
}

/// The result says whether an array was read.
impl<'de, T: Element> DeserializeSeed<'de> for NestingLevel<'_, T> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for NestingLevel<'_, T> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at element {}", T::NAME, self.out.len())
    }

    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<bool, E> {
        self.push(T::boolean(v), v)
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<bool, E> {
        self.push(T::unsigned(v), v)
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<bool, E> {
        self.push(T::signed(v), v)
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<bool, E> {
        self.push(T::float(v), v)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        self.push(T::missing(), "null")
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<bool, E> {
        let shown: String = v.chars().take(32).collect();
        self.push(T::text(v), format!("{shown:?}"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let Self { out, shape, depth, count } = self;
        let start = out.len();
        if depth > 0 && depth >= shape.len() {
            return Err(A::Error::custom(format!(
                "element {start}: nested deeper than shape {shape:?}"
            )));
        }
        let (mut items, mut nested) = (0_usize, None);
        while let Some(array) =
            seq.next_element_seed(NestingLevel { out: &mut *out, shape, depth: depth + 1, count })?
        {
            items += 1;
            if *nested.get_or_insert(array) != array {
                return Err(A::Error::custom(format!(
                    "element {}: values and arrays are mixed",
                    out.len().saturating_sub(1)
                )));
            }
        }
        let nested = nested.unwrap_or(false);
        // Flat data may have any shape; nested data must have the structure of the shape.
        let structured = depth > 0 || nested;
        // Below a dimension of 0 there is nothing to nest.
        let empty = items == 0 && shape.get(depth) == Some(&0);
        let too_shallow = structured && !nested && !empty && depth + 1 != shape.len();
        let wrong_length = structured && shape.get(depth).is_some_and(|want| *want != items);
        if too_shallow || wrong_length {
            let message = format!(
                "element {start}: an array of {items} at depth {depth} does not fit shape {shape:?}"
            );
            return Err(A::Error::custom(message));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, datatype: DataType, shape: &[usize]) -> Result<TensorData, String> {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        parse_data(&raw, datatype, shape, shape.iter().product())
    }

    #[test]
    fn nested_and_flat_are_equal() {
        let flat = get("[1,2,3,4,5,6]", DataType::F32, &[2, 3]).unwrap();
        assert_eq!(get("[[1,2,3],[4,5,6.0]]", DataType::F32, &[2, 3]).unwrap(), flat);
        assert_eq!(get("[7]", DataType::I64, &[]).unwrap(), TensorData::I64(vec![7]));
        assert_eq!(
            get("[true,false]", DataType::Bool, &[2]).unwrap(),
            TensorData::Bool(vec![true, false])
        );
        assert_eq!(
            get(r#"["a","\u00e9"]"#, DataType::Bytes, &[2]).unwrap(),
            TensorData::Bytes(vec!["a".into(), "é".into()])
        );
    }

    #[test]
    fn null_is_a_missing_value_of_floats() {
        let TensorData::F32(single) = get("[[1.5,null],[null,3]]", DataType::F32, &[2, 2]).unwrap()
        else {
            panic!()
        };
        assert!(single[0] == 1.5 && single[1].is_nan() && single[2].is_nan() && single[3] == 3.0);
        let TensorData::F64(double) = get("[null]", DataType::F64, &[1]).unwrap() else { panic!() };
        assert!(double[0].is_nan());
    }

    #[test]
    fn there_may_be_no_elements() {
        let none = TensorData::F32(vec![]);
        for (text, shape) in [
            ("[]", &[0][..]),
            ("[]", &[0, 3]),
            ("[]", &[2, 0]),
            ("[[],[]]", &[2, 0]),
            ("[[],[]]", &[2, 0, 3]),
            ("[]", &[0, 2, 3]),
        ] {
            assert_eq!(get(text, DataType::F32, shape).unwrap(), none, "{text} of {shape:?}");
        }
        for (text, shape) in
            [("[[]]", &[2, 0][..]), ("[[[]]]", &[1, 0]), ("[1]", &[0]), ("[[],[1]]", &[2, 0])]
        {
            assert!(get(text, DataType::F32, shape).is_err(), "{text} of {shape:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, datatype, shape, part) in [
            ("[1,2]", DataType::F32, &[3][..], "has 2 elements"),
            ("[1,2,3,4]", DataType::F32, &[3], "more than the 3"),
            ("[1,null,3]", DataType::I32, &[3], "element 1: null is not an INT32"),
            ("[null]", DataType::Bytes, &[1], "element 0: null is not a BYTES"),
            ("null", DataType::F32, &[1], "must be an array"),
            ("[1,\"2\",3]", DataType::F32, &[3], "element 1: \"2\" is not an FP32"),
            ("[5000000000]", DataType::I32, &[1], "5000000000 is not an INT32"),
            ("[5e9]", DataType::I32, &[1], "is not an INT32"),
            ("[1.5]", DataType::I32, &[1], "1.5 is not an INT32"),
            ("[-1]", DataType::U8, &[1], "-1 is not a UINT8"),
            ("[1e300]", DataType::F32, &[1], "is not an FP32"),
            ("[1]", DataType::Bool, &[1], "1 is not a BOOL"),
            ("[1]", DataType::F16, &[1], "binary"),
            ("5", DataType::F32, &[1], "must be an array"),
            ("{}", DataType::F32, &[1], "map"),
            ("[[1,2,3],[4]]", DataType::F32, &[2, 2], "does not fit shape"),
            ("[[1,2],3,4]", DataType::F32, &[2, 2], "mixed"),
            ("[[[1]]]", DataType::F32, &[1, 1], "deeper"),
            ("[[1,2]]", DataType::F32, &[1, 1, 2], "does not fit"),
            (r#"["a\u0000b"]"#, DataType::Bytes, &[1], "is not a BYTES"),
        ] {
            let text = get(text, datatype, shape).unwrap_err();
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert_eq!(get("[3.0]", DataType::U8, &[1]).unwrap(), TensorData::U8(vec![3]));
    }
}
