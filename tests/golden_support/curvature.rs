//! K-FAC: runs of kfac-pytorch, and inverses of a single batch.

use super::compare::Tolerance;
use super::matrix_runs::Options;
use super::trajectory::{Tree, check_parameters, gradients, parameters};
use super::{Outcome, fail, json};
use eigenstep::curvature::{
    Conv2d, KroneckerInverse, LayerSpec, LayerStats, LossReduction, NetworkFactors,
    NetworkPreconditioner,
};
use eigenstep::gradient::materialize;
use eigenstep::linalg::Damping;
use eigenstep::numeric::Real;
use eigenstep::prelude::*;
use ndarray::{Array2, ArrayD, Axis, array};
use serde_json::Value;

/// A shape and elements.
fn tensor<R: Real>(value: &Value) -> Outcome<ArrayD<R>> {
    json::only(value, &["shape", "data"])?;
    json::array(&json::shape(value, "shape")?, json::field(value, "data")?)
}

fn flat<R: Real>(x: &ArrayD<R>) -> Vec<f64> {
    x.iter().map(|x| x.widen()).collect()
}

/// The options of kfac-pytorch.
fn kfac_pytorch(case: &Value) -> Outcome<NetworkFactors> {
    let mut options = Options::new(case)?;
    let default = NetworkFactors::kfac_pytorch();
    let inverse = match (options.text("method"), options.text("damping_split")) {
        ("eigen", "joint") => KroneckerInverse::Joint,
        ("inverse", "each_factor_full_lambda") => KroneckerInverse::PerFactor,
        other => return Err(fail(format!("the method {other:?} is not understood"))),
    };
    let layer = LayerFactors {
        inverse,
        damping: Damping::absolute(options.number("damping")?),
        factor_beta: options.number("factor_decay")?,
        update_roots_every: options.number_or("inv_update_steps", 1.0)? as u64,
        ..default.layer
    };
    let kl_clip = Some(options.number("kl_clip")?);
    let network = NetworkFactors { layer, kl_clip, lr: options.number("lr")?, ..default };
    options.finish()?;
    Ok(network)
}

/// A layer; sizes are those of its weight.
fn layer(value: &Value, params: &Tree<ArrayD<f32>>) -> Outcome<LayerSpec> {
    let known = ["name", "kind", "bias", "kernel", "stride", "padding", "dilation", "groups"];
    json::only(value, &known)?;
    let name = json::text(value, "name")?;
    let weight = format!("{name}.weight");
    let shape = params.get(&weight).map(ArrayD::shape).unwrap_or_default();
    let pair = |key: &str| match json::shape(value, key)?[..] {
        [a, b] => Ok([a, b]),
        _ => Err(fail(format!("`{key}` is no pair"))),
    };
    let spec = match (json::text(value, "kind")?, shape) {
        ("linear", &[outputs, inputs]) => LayerSpec::linear(&weight, outputs, inputs),
        ("conv2d", &[outputs, channels, ..]) if json::count(value, "groups")? == 1 => {
            let conv = Conv2d {
                kernel: pair("kernel")?,
                stride: pair("stride")?,
                padding: pair("padding")?,
                dilation: pair("dilation")?,
            };
            LayerSpec::conv2d(&weight, outputs, channels, conv)
        }
        other => return Err(fail(format!("the layer {other:?} is not understood"))),
    };
    let bias = value.get("bias").and_then(Value::as_bool).unwrap_or(false);
    Ok(if bias { spec.with_bias(&format!("{name}.bias")) } else { spec })
}

/// A run of kfac-pytorch in front of gradient descent, in `f32`.
pub fn kfac(case: &Value) -> Outcome {
    let fields = ["optimizer", "origin", "dtype", "config", "layers", "params", "steps", "notes"];
    json::only(case, &fields)?;
    let config = kfac_pytorch(case)?;
    let mut opt = Sgd { lr: config.lr, ..Sgd::default() }.build::<f32>()?;
    let mut network = config.build()?;
    let mut params = parameters::<f32>(case)?;
    for value in json::list(case, "layers")? {
        network = network.with_layer(layer(value, &params)?)?;
    }
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        self::step(step, &mut network, &mut opt, &mut params)
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// The directions of a step, its parameters and statistics.
fn step(
    step: &Value,
    network: &mut NetworkPreconditioner<f32>,
    opt: &mut impl Optimizer<f32>,
    params: &mut Tree<ArrayD<f32>>,
) -> Outcome {
    json::only(step, &["loss", "layers", "grads", "expect", "expect_state"])?;
    let near = Tolerance { rtol: 1e-4, atol: 1e-6 };
    let layers: Vec<String> = network.layers().map(|spec| spec.weight().to_owned()).collect();
    for weight in &layers {
        let name = weight.trim_end_matches(".weight");
        let stats = json::field(json::field(step, "layers")?, name)?;
        json::only(stats, &["a", "delta"])?;
        let a = tensor::<f32>(json::field(stats, "a")?)?;
        let delta = tensor::<f32>(json::field(stats, "delta")?)?;
        let mean = LossReduction::MeanOverExamples;
        network.observe(&LayerStats::new(weight, &a, &delta, mean))?;
    }
    let grads = gradients(step, params)?;
    let view = network.precondition(&grads)?;
    let expected = json::field(step, "expect_state")?;
    json::only(expected, &["precond_grads", "A", "G"])?;
    check_parameters(expected, "precond_grads", &materialize(&view)?, near, &Tree::new())?;
    opt.step(params, &view)?;
    check_parameters(step, "expect", params, Tolerance { rtol: 1e-5, atol: 1e-6 }, &Tree::new())?;
    for key in ["G", "A"] {
        for (weight, expected) in layers.iter().zip(json::list(expected, key)?) {
            let factors = network.factors(weight).ok_or_else(|| fail("no layer"))?;
            let [left, right] = factors;
            let found = if key == "G" { left.statistic() } else { right.statistic() }.into_dyn();
            let what = format!("{key} of `{weight}`");
            let sums = Tolerance { rtol: 1e-5, atol: 1e-6 };
            sums.slice(&what, &flat(&found), &flat(&tensor::<f32>(expected)?))?;
        }
    }
    Ok(())
}

/// Every inverse of one batch.
pub fn precondition(input: &Value) -> Outcome {
    let config = json::field(input, "config")?;
    let known = ["damping", "bias", "examples", "rows_per_example", "kl_clip", "lr"];
    json::only(config, &known)?;
    let number = |key: &str| json::number(json::field(config, key)?);
    let bias = config.get("bias").and_then(Value::as_bool).unwrap_or(false);
    let (given, expect) = (json::field(input, "input")?, json::field(input, "expect")?);
    json::only(given, &["a", "delta_mean_loss"])?;
    let a = tensor::<f64>(json::field(given, "a")?)?;
    let delta = tensor::<f64>(json::field(given, "delta_mean_loss")?)?;
    let examples = json::count(config, "examples")?;
    if a.len_of(Axis(0)) != examples * json::count(config, "rows_per_example")? {
        return Err(fail("`rows_per_example` is not that of the rows"));
    }
    let spec = LayerSpec::linear("w", delta.len_of(Axis(1)), a.len_of(Axis(1)));
    let spec = if bias { spec.with_bias("b") } else { spec };
    let single = LayerFactors {
        damping: Damping::absolute(number("damping")?),
        keep_norm: false,
        factor_beta: 0.0,
        update_factors_every: 1,
        update_roots_every: 2,
        from_first_step: true,
        ..LayerFactors::kfac()
    };
    let grad = tensor::<f64>(json::field(expect, "grad")?)?;
    let batch = Batch { a, delta, examples, grad, spec };
    let near = Tolerance { rtol: 1e-10, atol: 1e-12 };
    let mut checked = vec!["grad", "pi"];
    for (key, inverse) in [
        ("precond_inverse_pi", KroneckerInverse::Balanced),
        ("precond_inverse_each_lambda", KroneckerInverse::PerFactor),
        ("precond_eigen", KroneckerInverse::Joint),
        ("precond_ekfac", KroneckerInverse::Ekfac),
    ] {
        let layer = LayerFactors { inverse, ..single.clone() };
        // of EKFAC's second moments along the eigenvectors, the second step makes the first use
        let steps = if inverse == KroneckerInverse::Ekfac { 2 } else { 1 };
        let (network, direction, _) = batch.run(NetworkFactors::new(layer), steps)?;
        checked.push(key);
        let expected = tensor::<f64>(json::field(expect, key)?)?;
        near.slice(key, &flat(&direction), &flat(&expected))?;
        let factors = network.factors("w").ok_or_else(|| fail("no layer"))?;
        for (key, factor) in ["G", "A"].iter().zip(factors) {
            let expected = tensor::<f64>(json::field(expect, key)?)?;
            near.slice(key, &flat(&factor.statistic().into_dyn()), &flat(&expected))?;
            checked.push(key);
        }
        if inverse == KroneckerInverse::Ekfac {
            let dict = network.state_dict();
            let moments = dict.tensors.get("layers.w.moments").ok_or_else(|| fail("no moments"))?;
            let mut moments = super::trajectory::elements(moments)?;
            moments.sort_by(f64::total_cmp);
            near.slice("moments", &moments, &json::reals(expect, "ekfac_scales_sorted")?)?;
            checked.push("ekfac_scales_sorted");
        }
    }
    let layer = LayerFactors { inverse: KroneckerInverse::Joint, ..single };
    let kl_clip = Some(number("kl_clip")?);
    let clipped = NetworkFactors { kl_clip, lr: number("lr")?, ..NetworkFactors::new(layer) };
    let (_, _, nu) = batch.run(clipped, 1)?;
    near.number("kl_nu_eigen", nu, json::number(json::field(expect, "kl_nu_eigen")?)?)?;
    checked.push("kl_nu_eigen");
    json::only(expect, &checked)
}

/// One batch of a layer.
struct Batch {
    a: ArrayD<f64>,
    delta: ArrayD<f64>,
    examples: usize,
    grad: ArrayD<f64>,
    spec: LayerSpec,
}

impl Batch {
    /// The network after so many steps on the batch, the last direction with that of the bias as its last
    /// column, and ν.
    fn run(
        &self,
        config: NetworkFactors,
        steps: usize,
    ) -> Outcome<(NetworkPreconditioner<f64>, ArrayD<f64>, f64)> {
        let mut network = config.build()?.with_layer(self.spec.clone())?;
        let columns = self.spec.inputs();
        let (weight, bias) = self.grad.view().split_at(Axis(1), columns);
        let bias = bias.iter().copied().collect::<ndarray::Array1<f64>>().into_dyn();
        let mut grads = Tree::from([("w".to_owned(), weight.to_owned())]);
        grads.extend(self.spec.bias().map(|name| (name.to_owned(), bias)));
        let mut last = (Tree::new(), 1.0);
        for _ in 0..steps {
            let mean = LossReduction::MeanOverExamples;
            let stats = LayerStats::new("w", &self.a, &self.delta, mean).examples(self.examples);
            network.observe(&stats)?;
            let view = network.precondition(&grads)?;
            last = (materialize(&view)?, view.kl_scale());
        }
        let (directions, nu) = last;
        let direction: Vec<_> =
            ["w", "b"].iter().filter_map(|name| directions.get(*name)).collect();
        let as_columns = |x: &ArrayD<f64>| -> Outcome<Array2<f64>> {
            let rows = self.spec.outputs();
            let matrix =
                Array2::from_shape_vec((rows, x.len() / rows), x.iter().copied().collect());
            matrix.map_err(|error| fail(error.to_string()))
        };
        let mut whole: Array2<f64> = array![[]];
        for (index, part) in direction.iter().enumerate() {
            let part = as_columns(part)?;
            whole = match index {
                0 => part,
                _ => ndarray::concatenate![Axis(1), whole, part],
            };
        }
        Ok((network, whole.into_dyn(), nu))
    }
}
