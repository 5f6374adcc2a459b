//! Units of the spec and the status: shares as percentages, memory as quantities.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Millionths of a whole in one percent.
const MILLIONTHS_PER_PERCENT: i64 = 10_000;

/// Schema pattern of a percentage above 0 and up to 100 in a string, with up to four decimals.
pub const SHARE: &str =
    r"^(100([.]0{1,4})?|[1-9][0-9]?([.][0-9]{1,4})?|0[.]0{0,3}[1-9][0-9]{0,3})%$";

/// Schema pattern of an amount of memory: an integer and a suffix, `64Mi` or `100k`.
pub const MEMORY: &str = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$";

/// A percentage: an integer (`5`) or a string with up to four decimals (`"0.5%"`, `"99.9%"`). Other
/// contents have no value; the schema and the operator reject them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Percentage(IntOrString);

impl Percentage {
    /// A percentage in the notation of the spec, `"0.5%"`.
    pub fn from_text(text: &str) -> Self {
        Self(IntOrString::String(text.to_owned()))
    }

    /// The value in millionths of the whole: 50,000 for 5 %. `None` if it is not a percentage, or
    /// more than 1,000,000 %.
    pub fn millionths(&self) -> Option<i64> {
        match &self.0 {
            IntOrString::Int(percent) => Some(i64::from(*percent) * MILLIONTHS_PER_PERCENT),
            IntOrString::String(text) => {
                let text = text.strip_suffix('%')?;
                let (whole, decimals) =
                    text.split_once('.').map_or((text, "0"), |(whole, decimals)| (whole, decimals));
                let digits =
                    |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                if !digits(whole) || !digits(decimals) || whole.len() > 6 || decimals.len() > 4 {
                    return None;
                }
                let decimals = format!("{decimals:0<4}");
                Some(
                    whole.parse::<i64>().ok()? * MILLIONTHS_PER_PERCENT
                        + decimals.parse::<i64>().ok()?,
                )
            }
        }
    }

    /// The value as a share of 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "at most 2^31 percent, far below 2^53 millionths"
    )]
    pub fn fraction(&self) -> Option<f64> {
        self.millionths().map(|millionths| millionths as f64 / 1_000_000.0)
    }

    /// The value in thousandths of the whole; `None` if it has a finer part, is negative, or is
    /// above 100 %.
    pub fn permille(&self) -> Option<i32> {
        let millionths = self.millionths()?;
        let exact = millionths % 1000 == 0 && (0..=1_000_000).contains(&millionths);
        exact.then(|| i32::try_from(millionths / 1000).ok()).flatten()
    }
}

impl From<i32> for Percentage {
    fn from(percent: i32) -> Self {
        Self(IntOrString::Int(percent))
    }
}

impl JsonSchema for Percentage {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percentage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// The number of bytes in an amount of memory (`64Mi`, `100k`, `4096`); `None` if it has another
/// form or does not fit.
pub fn quantity_bytes(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.as_str();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: i64 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// Thousandths in Rust, a percentage with at most one decimal (`5%`, `0.5%`) in JSON. An unreadable
/// value becomes [`UNREADABLE`](permille::UNREADABLE), so that the operator can correct a status
/// that another client changed, instead of failing to read it.
pub mod permille {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Percentage;

    /// Stands for a value that is not a percentage from 0 to 100 with at most one decimal.
    pub const UNREADABLE: i32 = -1;

    /// Formats thousandths as a percentage for display.
    pub fn format_permille(permille: i32) -> String {
        match permille % 10 {
            _ if permille < 0 => "unreadable".to_owned(),
            0 => format!("{}%", permille / 10),
            tenths => format!("{}.{}%", permille / 10, tenths),
        }
    }

    /// Serializes thousandths as a percentage.
    ///
    /// # Errors
    /// The errors of the serializer.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
    pub fn serialize<S: Serializer>(permille: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_permille(*permille))
    }

    /// Deserializes a percentage as thousandths.
    ///
    /// # Errors
    /// If the value is neither an integer nor a string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        Percentage::deserialize(deserializer)
            .map(|percentage| percentage.permille().unwrap_or(UNREADABLE))
    }

    /// The same for optional fields.
    pub mod option {
        use serde::{Deserializer, Serializer};

        /// Serializes optional thousandths.
        ///
        /// # Errors
        /// The errors of the serializer.
        #[allow(clippy::ref_option, reason = "serde's form")]
        pub fn serialize<S: Serializer>(
            permille: &Option<i32>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match permille {
                Some(permille) => super::serialize(permille, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Deserializes the value of a field that is present; serde calls this only then.
        ///
        /// # Errors
        /// If the value is neither an integer nor a string.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<i32>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

/// Bounds of a share, in percent.
pub const SHARE_BOUNDS: (f64, f64) = (0.01, 100.0);

/// Checks that a percentage is within bounds, given in percent. Returns the error with the field
/// and the remedy.
pub fn check_share(field: &str, share: &Percentage, (from, to): (f64, f64)) -> Option<String> {
    let percent = share.fraction().map(|fraction| fraction * 100.0);
    let fits = percent.is_some_and(|percent| percent >= from - 1e-9 && percent <= to + 1e-9);
    (!fits)
        .then(|| format!("{field}: must be a percentage from {from} to {to}, as an integer (5) or a string (\"0.5%\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_integers_or_strings_with_decimals() {
        for (text, millionths) in [
            ("5%", 50_000),
            ("0.5%", 5000),
            ("99.9%", 999_000),
            ("0.0001%", 1),
            ("150%", 1_500_000),
        ] {
            assert_eq!(Percentage::from_text(text).millionths(), Some(millionths), "{text}");
        }
        assert_eq!(Percentage::from(5).millionths(), Some(50_000));
        for wrong in
            ["", "%", "5", "-1%", "0.55555%", ".5%", "5.%", "a%", "1e1%", "+5%", "99999999999%"]
        {
            assert_eq!(Percentage::from_text(wrong).millionths(), None, "{wrong}");
        }
    }

    #[test]
    fn weights_are_thousandths() {
        let of = |text: &str| Percentage::from_text(text).permille();
        assert_eq!(
            (of("0.5%"), of("5%"), of("100%"), of("100.0%")),
            (Some(5), Some(50), Some(1000), Some(1000))
        );
        for wrong in ["100.1%", "0.55%", "101%"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(Percentage::from(25).permille(), Some(250));
        assert_eq!(
            (Percentage::from(101).permille(), Percentage::from(i32::MIN).permille()),
            (None, None)
        );
        for permille in 0..=1000 {
            assert_eq!(of(&permille::format_permille(permille)), Some(permille));
        }
    }

    #[test]
    fn memory_has_the_suffixes_of_kubernetes() {
        let of = |text: &str| quantity_bytes(&Quantity(text.to_owned()));
        assert_eq!(
            (of("4096"), of("64Mi"), of("100k"), of("0")),
            (Some(4096), Some(64 << 20), Some(100_000), Some(0))
        );
        for wrong in ["", "Mi", "-1", "1.5Gi", "64MB", "64m", "9999999999999999Ti", "1 Mi"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
