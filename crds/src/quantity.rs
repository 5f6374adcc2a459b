//! Parsing of Kubernetes quantities.

/// Parses a Kubernetes quantity as a number: `0.95`, `950m`, `1k`, `2Gi`, `1e3`.
pub fn parse_quantity(quantity: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let plain = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let quantity = quantity.trim();
    plain(quantity).or_else(|| {
        SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| Some(plain(quantity.strip_suffix(suffix)?)? * factor))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_quantity;

    #[test]
    fn quantities_are_numbers() {
        let near = |text: &str, want: f64| {
            let got = parse_quantity(text).unwrap();
            assert!((got - want).abs() <= 1e-12 * want.abs(), "{text}: {got}");
        };
        for (text, want) in [
            ("0.95", 0.95),
            ("950m", 0.95),
            ("1k", 1e3),
            ("2Gi", 2_147_483_648.0),
            ("1e3", 1e3),
            ("1E", 1e18),
            ("-5", -5.0),
        ] {
            near(text, want);
        }
        for text in ["", "abc", "inf", "NaN", "m", "1 %"] {
            assert_eq!(parse_quantity(text), None, "{text}");
        }
    }
}
