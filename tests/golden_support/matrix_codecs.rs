//! Kernel cases of the codes of matrices.

use super::compare::{Tolerance, equal, identical};
use super::{Outcome, fail, json, skip};
use eigenstep::linalg::{bjorck, eigh, matmul, qr};
use eigenstep::quant::{MatrixCodec, MatrixMap, QuantizedColumns, QuantizedSymmetric};
use ndarray::{Array1, Array2, Axis, Ix2};
use serde_json::Value;

const EXACT: Tolerance = Tolerance { rtol: 1e-12, atol: 1e-14 };

fn map(name: &str) -> Outcome<MatrixMap> {
    match name {
        "linear2" => Ok(MatrixMap::Linear2),
        "dt" => Ok(MatrixMap::DynamicTree),
        _ => Err(skip(format!("the crate has no map `{name}`"))),
    }
}

fn codec(config: &Value) -> Outcome<MatrixCodec> {
    Ok(MatrixCodec {
        bits: json::count(config, "bits")? as u8,
        block_size: json::count(config, "block")?,
        map: map(json::text(config, "mapping")?)?,
    })
}

/// The field `key`: a matrix as its shape and its data.
fn matrix(value: &Value, key: &str) -> Outcome<Array2<f64>> {
    let value = json::field(value, key)?;
    let array = json::array(&json::shape(value, "shape")?, json::field(value, "data")?)?;
    array.into_dimensionality::<Ix2>().map_err(|error| fail(error.to_string()))
}

fn close(what: &str, found: &Array2<f64>, expected: &Array2<f64>) -> Outcome {
    let flat = |x: &Array2<f64>| x.iter().copied().collect::<Vec<_>>();
    EXACT.slice(what, &flat(found), &flat(expected))
}

/// The codes of `length` entries, from the definition of the packing.
fn unpack(bits: u8, length: usize, bytes: &[u8]) -> Vec<u32> {
    let width = usize::from(bits);
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |byte| u32::from(byte >> (i % 8) & 1));
    (0..length).map(|k| (0..width).map(|b| bit(k * width + b) << b).sum()).collect()
}

/// Levels; the name is that of the map and of the number of bits, `linear2_3bit`.
pub fn levels(input: &Value) -> Outcome {
    let name = json::text(json::field(input, "input")?, "name")?;
    let unknown = || skip(format!("the crate has no code table `{name}`"));
    let (map_name, bits) = name.split_once('_').ok_or_else(unknown)?;
    let bits = bits.strip_suffix("bit").and_then(|bits| bits.parse().ok()).ok_or_else(unknown)?;
    identical(name, map(map_name)?.levels(bits)?, &json::reals::<f64>(input, "expect")?)
}

/// A vector is a matrix of one column.
pub fn vector(input: &Value) -> Outcome {
    let (codec, expect) = (codec(json::field(input, "config")?)?, json::field(input, "expect")?);
    let x = Array1::from(json::reals::<f64>(input, "input")?).insert_axis(Axis(1));
    let mut coded = QuantizedColumns::zeros(codec, x.dim())?;
    coded.encode(&x)?;
    let codes = unpack(codec.bits, x.len(), coded.codes());
    equal("codes", &codes, &json::integers(expect, "codes")?)?;
    identical("absmax", coded.scales(), &json::reals::<f64>(expect, "absmax")?)?;
    let dequantized = json::reals::<f64>(expect, "dequantized")?;
    identical("dequantized", &coded.decode().into_raw_vec_and_offset().0, &dequantized)?;
    // the reference spends a byte on a code of 3 bits
    let packed = json::integers(expect, "packed")?;
    let bytes: Vec<u32> = coded.codes().iter().copied().map(u32::from).collect();
    equal("packed", if codec.bits == 3 { &codes } else { &bytes }, &packed)
}

/// A matrix of eigenvectors, or one with an exact diagonal.
pub fn matrices(input: &Value) -> Outcome {
    let (config, expect) = (json::field(input, "config")?, json::field(input, "expect")?);
    let (codec, x) = (codec(config)?, matrix(input, "input")?);
    match json::text(config, "what")? {
        "columns" => columns(codec, &x, expect),
        "offdiagonal_rows" => {
            let mut coded = QuantizedSymmetric::zeros(codec, x.nrows())?;
            coded.encode(&x)?;
            identical("diagonal", coded.diagonal(), &json::reals::<f64>(expect, "diagonal")?)?;
            close("dequantized", &coded.decode(), &matrix(expect, "dequantized")?)
        }
        what => Err(skip(format!("the crate does not code `{what}`"))),
    }
}

fn columns(codec: MatrixCodec, x: &Array2<f64>, expect: &Value) -> Outcome {
    let mut coded = QuantizedColumns::zeros(codec, x.dim())?;
    coded.encode(x)?;
    let width = (x.nrows() * usize::from(codec.bits)).div_ceil(8);
    let expected = json::list(expect, "codes_by_column")?;
    for (bytes, column) in coded.codes().chunks(width).zip(expected) {
        let expected: Vec<u32> = json::numbers(column)?.into_iter().map(|x| x as u32).collect();
        equal("codes", &unpack(codec.bits, x.nrows(), bytes), &expected)?;
    }
    let mut scales = Vec::new();
    for column in json::list(expect, "absmax_by_column")? {
        scales.extend(json::numbers(column)?);
    }
    identical("absmax", coded.scales(), &scales)?;
    let mut v = coded.decode();
    close("dequantized", &v, &matrix(expect, "dequantized")?)?;
    let departures = json::reals::<f64>(expect, "orthogonality_error_fro")?;
    for (iterations, departure) in departures.into_iter().enumerate() {
        let gram = matmul(&v.t(), &v)? - Array2::<f64>::eye(v.ncols());
        let found = gram.mapv(|x| x * x).sum().sqrt();
        let tolerance = Tolerance { rtol: 1e-9, atol: 1e-13 };
        tolerance.number(&format!("departure after {iterations}"), found, departure)?;
        if let 1 | 4 = iterations {
            close("bjorck", &v, &matrix(expect, &format!("bjorck{iterations}"))?)?;
        }
        v = bjorck(&v, 1)?;
    }
    Ok(())
}

/// Errors of `A^(−1/4)`. Where a case does not give the eigenvectors, others will do, and the figures
/// are statistics.
pub fn error_metrics(input: &Value) -> Outcome {
    let config = json::field(input, "config")?;
    let given = json::field(input, "input")?;
    let number = |key| json::number(json::field(given, key)?);
    let (n, ratio) = (json::count(given, "n")?, number("ratio")?);
    let large = number("large_fraction")?;
    let (u, tolerances) = if json::field(given, "u")?.is_null() {
        (orthogonal(n)?, [0.3, 0.1])
    } else {
        (matrix(given, "u")?, [1e-7; 2])
    };
    let [of_a, of_u] = tolerances.map(|rtol| Tolerance { rtol, atol: 1e-9 });
    let large = (large * n as f64).round() as usize;
    let values = Array1::from_shape_fn(n, |i| if i < large { ratio } else { 1.0 });
    let a = rebuild(&u, &values)?;
    let exact = power(&a)?;
    for (name, expect) in json::object(input, "expect")? {
        let codec = MatrixCodec {
            bits: json::count(config, "bits")? as u8,
            block_size: json::count(config, "block")?,
            map: map(name)?,
        };
        let mut coded = QuantizedSymmetric::zeros(codec, n)?;
        coded.encode(&a)?;
        metrics(&exact, &power(&coded.decode())?, json::field(expect, "quantize_A")?, of_a)?;
        let mut coded = QuantizedColumns::zeros(codec, (n, n))?;
        coded.encode(&u)?;
        let mut v = coded.decode();
        for iterations in 0..=4 {
            if let Some(rectified) = expect.get(format!("quantize_U_or{iterations}")) {
                metrics(&exact, &power(&rebuild(&v, &values)?)?, rectified, of_u)?;
                let direct = json::field(expect, &format!("quantize_U_direct{iterations}"))?;
                let root = rebuild(&v, &values.mapv(|x| x.powf(-0.25)))?;
                metrics(&exact, &root, direct, of_u)?;
            }
            v = bjorck(&v, 1)?;
        }
    }
    Ok(())
}

/// Q of a matrix of numbers that have no order.
fn orthogonal(n: usize) -> Outcome<Array2<f64>> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let gaussian = Array2::from_shape_simple_fn((n, n), || (0..12).map(|_| uniform()).sum());
    Ok(qr(&gaussian)?.0)
}

fn rebuild(v: &Array2<f64>, values: &Array1<f64>) -> Outcome<Array2<f64>> {
    Ok(matmul(&(v * values), &v.t())?)
}

/// `|A|^(−1/4)`.
fn power(a: &Array2<f64>) -> Outcome<Array2<f64>> {
    let (values, vectors) = eigh(&((a + &a.t()) / 2.0))?;
    rebuild(&vectors, &values.mapv(|x| x.abs().powf(-0.25)))
}

/// The relative error, and the angle in degrees.
fn metrics(
    exact: &Array2<f64>,
    found: &Array2<f64>,
    expect: &Value,
    tolerance: Tolerance,
) -> Outcome {
    let norm = |x: &Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
    let cosine = (exact * found).sum() / (norm(exact) * norm(found));
    let expected = |key| json::number(json::field(expect, key)?);
    let error = norm(&(exact - found)) / norm(exact);
    tolerance.number("error", error, expected("nre")?)?;
    tolerance.number("angle", cosine.acos().to_degrees(), expected("ae_deg")?)
}
