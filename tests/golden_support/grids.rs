//! Numbers on grids: stochastic rounding, straight-through estimators and their noise, work splits.

use super::compare::{Tolerance, equal, identical};
use super::{Outcome, json, kernels, skip};
use eigenstep::zeroth_order::{
    Format, Fp8, Grid, IntegerFormat, StraightThrough, stochastic_round_int, work_split,
};
use serde_json::Value;

/// What the README of the vectors asks for.
pub const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-12 };

fn integer(value: &Value, key: &str) -> Outcome<i32> {
    let found = json::field(value, key)?.as_i64().and_then(|value| i32::try_from(value).ok());
    found.ok_or_else(|| super::fail(format!("`{key}` is no integer")))
}

fn number(value: &Value, key: &str) -> Outcome<f64> {
    json::number(json::field(value, key)?)
}

pub fn stochastic_int(case: &Value) -> Outcome {
    let config = kernels::config(case, &["qmin", "qmax"])?;
    let input = json::field(case, "input")?;
    json::only(input, &["y", "u"])?;
    let (y, u) = (number(input, "y")?, number(input, "u")?);
    let (qmin, qmax) = (integer(config, "qmin")?, integer(config, "qmax")?);
    let expected = integer(case, "expect")?;
    equal("code", &[stochastic_round_int(y, u, qmin, qmax)], &[expected])?;
    // the same by the format of this range
    let bits = (qmax as u32 + 1).trailing_zeros() as u8 + 1;
    let format = IntegerFormat { bits, full: qmin < -qmax };
    equal("range", &[format.qmin(), format.qmax()], &[qmin, qmax])?;
    identical("value", &[Format::Int(format).round(y, 1.0, u)], &[f64::from(expected)])
}

fn fp8(name: &str) -> Outcome<(Fp8, Format)> {
    match name {
        "e4m3" => Ok((Fp8::E4M3, Format::E4M3)),
        "e5m2" => Ok((Fp8::E5M2, Format::E5M2)),
        _ => Err(skip(format!("the crate has no format `{name}`"))),
    }
}

/// The table of all codes, which stands beside the cases.
pub fn fp8_table(case: &Value) -> Outcome {
    let first = json::list(case, "cases")?.first().cloned().unwrap_or_default();
    let (format, _) = fp8(json::text(json::field(&first, "config")?, "format")?)?;
    let entry = |value: &Value| if value.is_null() { Ok(f64::NAN) } else { json::number(value) };
    let table: Vec<f64> = json::list(case, "decode")?.iter().map(entry).collect::<Outcome<_>>()?;
    let found: Vec<f64> = (0..=u8::MAX).map(|code| format.decode(code)).collect();
    equal("codes", &[found.len()], &[table.len()])?;
    for (code, (found, expected)) in found.iter().zip(&table).enumerate() {
        // NaN has more than one pattern of bits
        if !(found.is_nan() && expected.is_nan()) {
            identical(&format!("decode, code {code}"), &[*found], &[*expected])?;
        }
    }
    Ok(())
}

pub fn stochastic_fp8(case: &Value) -> Outcome {
    let config = kernels::config(case, &["format"])?;
    let (fp8, format) = fp8(json::text(config, "format")?)?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    json::only(input, &["x", "u"])?;
    json::only(expect, &["stochastic", "nearest_even"])?;
    let (x, u) = (number(input, "x")?, number(input, "u")?);
    let expected = [number(expect, "stochastic")?, number(expect, "nearest_even")?];
    identical("stochastic, nearest_even", &[fp8.round(x, u), fp8.nearest(x)], &expected)?;
    let scaled = [format.round(4.0 * x, 4.0, u), format.nearest(4.0 * x, 4.0)];
    identical("the same at scale 4", &scaled, &expected.map(|value| 4.0 * value))
}

fn estimator(name: &str) -> Outcome<StraightThrough> {
    Ok(match name {
        "identity" | "identity_round" => StraightThrough::Identity,
        "clipped" => StraightThrough::Clipped,
        "hardtanh" | "hardtanh_sign" => StraightThrough::HardTanh,
        "tanh" | "tanh_sign" => StraightThrough::Tanh,
        "approxsign" | "approxsign_sign" => StraightThrough::ApproxSign,
        _ => return Err(skip(format!("the crate has no estimator `{name}`"))),
    })
}

pub fn ste(case: &Value) -> Outcome {
    let config = kernels::config(case, &["ste", "alpha", "qmin", "qmax"])?;
    let ste = estimator(json::text(config, "ste")?)?;
    let (qmin, qmax) = (integer(config, "qmin")?, integer(config, "qmax")?);
    let grid = Grid { alpha: number(config, "alpha")?, qmin, qmax };
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    json::only(input, &["x", "upstream"])?;
    json::only(expect, &["forward", "backward"])?;
    let (x, upstream) = (json::reals::<f64>(input, "x")?, json::reals::<f64>(input, "upstream")?);
    let (mut forward, mut backward) = (vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]);
    ste.forward_slice(&x, grid, &mut forward)?;
    ste.backward_slice(&x, &upstream, grid, &mut backward)?;
    TOLERANCE.slice("forward", &forward, &json::reals(expect, "forward")?)?;
    TOLERANCE.slice("backward", &backward, &json::reals(expect, "backward")?)
}

pub fn noise(case: &Value) -> Outcome {
    let ste = estimator(json::text(kernels::config(case, &["ste"])?, "ste")?)?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    json::only(input, &["p"])?;
    json::only(expect, &["u", "eps_bar"])?;
    TOLERANCE.number("eps_bar", ste.epsilon_bar(), number(expect, "eps_bar")?)?;
    TOLERANCE.number("u", ste.noise(number(input, "p")?), number(expect, "u")?)
}

pub fn split(case: &Value) -> Outcome {
    let workers = json::count(kernels::config(case, &["workers"])?, "workers")?;
    let input = json::field(case, "input")?;
    json::only(input, &["weights"])?;
    let weights = json::integers(input, "weights")?;
    let weights: Vec<u64> = weights.into_iter().map(u64::from).collect();
    equal("workers", &work_split(&weights, workers)?, &json::shape(case, "expect")?)
}
