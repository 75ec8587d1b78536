//! Kubernetes' quantities (`100m`, `2Gi`, `1e3`), as far as a configuration needs them: which texts are some, and how
//! Kubernetes spells them after reading.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    format: Format,
    /// Power of ten, or of two for a binary suffix.
    exponent: i32,
}

/// The spelling of a quantity after Kubernetes read it, none if it is no quantity: the largest suffix that leaves an
/// integer. What exceeds 128 bits keeps its spelling.
pub(crate) fn spelling(text: &str) -> Option<String> {
    let parts = parse(text)?;
    Some(canonical(&parts).unwrap_or_else(|| text.to_owned()))
}

fn length(digits: &str) -> i32 {
    i32::try_from(digits.len()).unwrap_or(i32::MAX)
}

fn parse(text: &str) -> Option<Parts<'_>> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = unsigned.split_at(digits(unsigned));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (format, exponent) = match suffix {
        "" => (Format::Decimal, 0),
        "n" => (Format::Decimal, -9),
        "u" => (Format::Decimal, -6),
        "m" => (Format::Decimal, -3),
        "k" => (Format::Decimal, 3),
        "M" => (Format::Decimal, 6),
        "G" => (Format::Decimal, 9),
        "T" => (Format::Decimal, 12),
        "P" => (Format::Decimal, 15),
        "E" => (Format::Decimal, 18),
        "Ki" => (Format::Binary, 10),
        "Mi" => (Format::Binary, 20),
        "Gi" => (Format::Binary, 30),
        "Ti" => (Format::Binary, 40),
        "Pi" => (Format::Binary, 50),
        "Ei" => (Format::Binary, 60),
        _ => (
            Format::Exponent,
            suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
        ),
    };
    let whole = match whole.trim_start_matches('0') {
        "" if !whole.is_empty() => "0",
        significant => significant,
    };
    Some(Parts {
        negative,
        whole,
        fraction,
        format,
        exponent,
    })
}

fn canonical(parts: &Parts<'_>) -> Option<String> {
    let mut digits: i128 = format!("{}{}", parts.whole, parts.fraction).parse().ok()?;
    if digits == 0 {
        return Some("0".to_owned());
    }
    let sign = if parts.negative { "-" } else { "" };
    let scale = length(parts.fraction);
    if parts.format == Format::Binary {
        let mut numerator =
            digits.checked_mul(1i128.checked_shl(u32::try_from(parts.exponent).ok()?)?)?;
        let denominator = 10i128.checked_pow(u32::try_from(scale).ok()?)?;
        if numerator % denominator != 0 {
            // A fraction of a byte: decimal from here, rounded up at a billionth.
            let billionths = numerator.checked_mul(1_000_000_000)?;
            let rounded = billionths / denominator + i128::from(billionths % denominator != 0);
            return Some(format!(
                "{sign}{}",
                with_suffix(rounded, -9, Format::Decimal)
            ));
        }
        numerator /= denominator;
        if numerator < 1024 {
            return Some(format!(
                "{sign}{}",
                with_suffix(numerator, 0, Format::Decimal)
            ));
        }
        let mut power = 0;
        while power < 6 && numerator % 1024 == 0 {
            numerator /= 1024;
            power += 1;
        }
        return Some(format!(
            "{sign}{numerator}{}",
            ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]
        ));
    }
    let mut exponent = parts.exponent.checked_sub(scale)?;
    while exponent < -9 && digits > 1 {
        digits = digits / 10 + i128::from(digits % 10 != 0);
        exponent += 1;
    }
    // Rounded up, one stays one however far it goes.
    exponent = exponent.max(-9);
    Some(format!(
        "{sign}{}",
        with_suffix(digits, exponent, parts.format)
    ))
}

fn with_suffix(mut digits: i128, mut exponent: i32, format: Format) -> String {
    // Suffixes end at 10^18; an exponent written as a number does not.
    let highest = if format == Format::Exponent {
        i32::MAX
    } else {
        18
    };
    while digits % 10 == 0 && digits != 0 && exponent < highest {
        digits /= 10;
        exponent += 1;
    }
    while exponent.rem_euclid(3) != 0 || exponent > highest {
        digits = digits.saturating_mul(10);
        exponent -= 1;
    }
    if format == Format::Exponent {
        return if exponent == 0 {
            digits.to_string()
        } else {
            format!("{digits}e{exponent}")
        };
    }
    let suffix = match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => "",
    };
    format!("{digits}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_those_of_kubernetes() {
        for (text, expected) in [
            ("100m", "100m"),
            ("4000m", "4"),
            ("0.5", "500m"),
            ("3.0", "3"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("2Gi", "2Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("5e2", "500"),
            ("-4000m", "-4"),
            ("0m", "0"),
            ("1e-10", "1e-9"),
            ("1e-2147483000", "1e-9"),
            ("0", "0"),
        ] {
            assert_eq!(spelling(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "m", "1x", "1 Gi", "1KI", ".", "e3"] {
            assert_eq!(spelling(text), None, "{text:?}");
        }
    }
}
