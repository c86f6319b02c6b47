//! Small kernel cases: norms of matrices and their duals, width scaling, RAdam's rectification, 8-bit floats by blocks.

use super::compare::{Tolerance, equal, identical};
use super::kernels::config;
use super::{Outcome, fail, json};
use eigenstep::linalg::{MatrixNorm, NewtonSchulz};
use eigenstep::prelude::*;
use eigenstep::second_order::{LayerRole, UpdateKind, mup_scales};
use eigenstep::zeroth_order::Fp8;
use ndarray::{Array2, array};
use serde_json::Value;

const EXACT: Tolerance = Tolerance { rtol: 1e-12, atol: 1e-13 };

fn matrix(shape: &Value, values: &Value) -> Outcome<Array2<f64>> {
    let array = json::array::<f64>(&json::shape(shape, "shape")?, values)?;
    array.into_dimensionality().map_err(|error| fail(error.to_string()))
}

fn flat(matrix: &Array2<f64>) -> Vec<f64> {
    matrix.iter().copied().collect()
}

/// Dual norms and directions; of every direction also that it has norm 1, and the dual norm as product.
pub fn duality_maps(input: &Value) -> Outcome {
    let shape = config(input, &["shape"])?;
    let g = matrix(shape, json::field(input, "input")?)?;
    let expect = json::field(input, "expect")?;
    let mut read = 0;
    for (name, norm) in [
        ("l1_to_linf", MatrixNorm::MaxEntry),
        ("spectral", MatrixNorm::Spectral),
        ("rms_to_rms", MatrixNorm::RmsToRms),
        ("l1_to_rms", MatrixNorm::ColumnRms),
        ("l2_to_linf", MatrixNorm::RowLength),
        ("frobenius", MatrixNorm::Frobenius),
    ] {
        let dual = json::number(json::field(expect, &format!("{name}_dual_norm"))?)?;
        let direction = json::reals::<f64>(expect, &format!("{name}_direction"))?;
        let found = norm.direction(&g)?;
        EXACT.slice(name, &flat(&found), &direction)?;
        let sizes = [norm.dual(&g)?, (&g * &found).sum(), norm.norm(&found)?];
        EXACT.slice(name, &sizes, &[dual, dual, 1.0])?;
        read += 2;
    }
    equal("numbers that were read", &[read], &[json::object(input, "expect")?.len()])
}

pub fn newton_schulz(input: &Value) -> Outcome {
    let config = config(input, &["shape", "steps", "coefficients", "eps"])?;
    let [a, b, c] = json::numbers(json::field(config, "coefficients")?)?[..] else {
        return Err(fail("`coefficients` are no three numbers"));
    };
    let iteration = NewtonSchulz {
        eps: json::number(json::field(config, "eps")?)?,
        ..NewtonSchulz::repeated([a, b, c], json::count(config, "steps")?)
    };
    let found = iteration.orthogonalize(&matrix(config, json::field(input, "input")?)?)?;
    EXACT.slice("X", &flat(&found), &json::reals(input, "expect")?)
}

/// With a gradient of 1, RAdam's step is the rectification, which ρ determines.
pub fn radam_rho(input: &Value) -> Outcome {
    let beta2 = json::number(json::field(config(input, &["beta2"])?, "beta2")?)?;
    let t = json::count(json::field(input, "input")?, "step")?;
    let expect = json::field(input, "expect")?;
    json::only(expect, &["rho_t", "rho_inf"])?;
    let number = |key: &str| json::number(json::field(expect, key)?);
    let (rho, limit) = (number("rho_t")?, number("rho_inf")?);
    let mut opt =
        RAdam { lr: 1.0, betas: (0.0, beta2), eps: 0.0, ..RAdam::default() }.build::<f64>()?;
    let (mut w, grad) = (array![0.0], array![1.0]);
    let mut step = 0.0;
    for _ in 0..t {
        w.fill(0.0);
        opt.step(&mut w, &grad)?;
        step = -w.sum();
    }
    let square = |rho: f64| (rho - 4.0) * (rho - 2.0) / rho;
    let expected = if rho > 5.0 { (square(rho) / square(limit)).sqrt() } else { 1.0 };
    Tolerance { rtol: 1e-11, atol: 0.0 }.slice("rectification", &[step], &[expected])
}

/// The table for weights that act themselves, and that for an output with a multiplier.
pub fn mup_lr(input: &Value) -> Outcome {
    let lr = json::number(json::field(config(input, &["lr"])?, "lr")?)?;
    let given = json::field(input, "input")?;
    let ratio = json::count(given, "width")? as f64 / json::count(given, "base_width")? as f64;
    let expect = json::field(input, "expect")?;
    json::only(expect, &["adam", "sgd", "adamw_weight_decay_hidden_factor", "munit_hidden_lr"])?;
    for (name, kind) in [("adam", UpdateKind::Adam), ("sgd", UpdateKind::Sgd)] {
        let expect = json::field(expect, name)?;
        json::only(expect, &["input", "hidden", "output", "output_multiplier", "vector"])?;
        let number = |key: &str| json::number(json::field(expect, key)?);
        let multiplier = number("output_multiplier")?;
        let output =
            mup_scales(kind, LayerRole::Output, ratio)?.with_multiplier(kind, multiplier)?;
        let inputs = lr * mup_scales(kind, LayerRole::Input, ratio)?.lr;
        let hidden = lr * mup_scales(kind, LayerRole::Hidden, ratio)?.lr;
        let found = [inputs, hidden, lr * output.lr, multiplier, inputs, output.init_std];
        let (input, hidden, output) = (number("input")?, number("hidden")?, number("output")?);
        let expected = [input, hidden, output, 1.0 / ratio, number("vector")?, 1.0];
        EXACT.slice(name, &found, &expected)?;
    }
    // hidden weights of variance 1 behind a multiplier of 1/√(number of inputs)
    let hidden = mup_scales(UpdateKind::Adam, LayerRole::Hidden, ratio)?;
    let unit = hidden.with_multiplier(UpdateKind::Adam, ratio.powf(-0.5))?;
    let number = |key: &str| json::number(json::field(expect, key)?);
    let expected = [number("adamw_weight_decay_hidden_factor")?, number("munit_hidden_lr")?, 1.0];
    EXACT.slice("hidden", &[1.0 / hidden.lr, lr * unit.lr, unit.init_std], &expected)
}

/// Blocks scaled to the largest number of the type. torch has a negative zero, the crate one zero.
pub fn fp8(input: &Value) -> Outcome {
    let config = config(input, &["block", "max"])?;
    let (x, expect) = (json::reals::<f32>(input, "input")?, json::field(input, "expect")?);
    let (mut codes, mut scales, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
    equal("largest", &[Fp8::E4M3.largest()], &[json::number(json::field(config, "max")?)?])?;
    for block in x.chunks(json::count(config, "block")?) {
        let largest = block.iter().fold(1e-12f32, |largest, x| largest.max(x.abs()));
        let scale = largest / Fp8::E4M3.largest() as f32;
        scales.push(scale);
        for x in block {
            let code = Fp8::E4M3.encode_nearest(f64::from(x / scale));
            codes.push(u32::from(code));
            decoded.push(Fp8::E4M3.decode(code) as f32 * scale);
        }
    }
    let one_zero = |code: u32| if code == 0x80 { 0 } else { code };
    let expected: Vec<u32> = json::integers(expect, "codes")?.into_iter().map(one_zero).collect();
    equal("codes", &codes, &expected)?;
    identical("scale", &scales, &json::reals(expect, "scale")?)?;
    equal("decoded", &decoded, &json::reals(expect, "dequantized")?)
}
