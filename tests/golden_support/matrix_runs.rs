//! Trajectories of matrix methods: configurations that no table of numbers can spell.

use super::compare::Tolerance;
use super::trajectory::{check_parameters, check_state, gradients, parameters};
use super::{Outcome, fail, json, skip};
use eigenstep::linalg::{CoupledNewton, Damping, QrSigns};
use eigenstep::optim::MatrixMethod;
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::factor::{FactorStorage, RootSolver};
use eigenstep::second_order::{LrAdjustment, Muon, Orthogonalization, ScionNorm};
use ndarray::ArrayD;
use serde_json::{Map, Value};

/// What trajectories in `f64` are compared to.
const TIGHT: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-11 };

/// The options of a case; every one has to be read.
pub struct Options<'v> {
    given: &'v Map<String, Value>,
    read: Vec<&'static str>,
}

impl<'v> Options<'v> {
    pub fn new(case: &'v Value) -> Outcome<Self> {
        Ok(Self { given: json::object(case, "config")?, read: Vec::new() })
    }

    pub fn get(&mut self, name: &'static str) -> Option<&'v Value> {
        self.read.push(name);
        self.given.get(name)
    }

    pub fn number(&mut self, name: &'static str) -> Outcome<f64> {
        json::number(self.get(name).ok_or_else(|| fail(format!("config lacks `{name}`")))?)
    }

    pub fn number_or(&mut self, name: &'static str, default: f64) -> Outcome<f64> {
        self.get(name).map_or(Ok(default), json::number)
    }

    pub fn count(&mut self, name: &'static str) -> Outcome<usize> {
        Ok(self.number(name)? as usize)
    }

    pub fn flag(&mut self, name: &'static str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn text(&mut self, name: &'static str) -> &'v str {
        self.get(name).and_then(Value::as_str).unwrap_or("")
    }

    pub fn pair(&mut self, name: &'static str) -> Outcome<(f64, f64)> {
        match json::numbers(self.get(name).unwrap_or(&Value::Null))?[..] {
            [a, b] => Ok((a, b)),
            _ => Err(fail(format!("`{name}` is no pair"))),
        }
    }

    pub fn finish(self) -> Outcome {
        match self.given.keys().find(|key| !self.read.contains(&key.as_str())) {
            Some(key) => Err(fail(format!("config: `{key}` is not understood"))),
            None => Ok(()),
        }
    }
}

/// Steps through a case; `extra` is what an element of a parameter of this shape may be off by after
/// so many steps, on top of `tolerance`.
pub(super) fn steps<R: Real>(
    case: &Value,
    mut opt: impl Optimizer<R>,
    tolerance: Tolerance,
    extra: impl Fn(&[usize], usize) -> f64,
) -> Outcome {
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "params", "steps", "notes", "final_state"],
    )?;
    let mut params = parameters::<R>(case)?;
    let steps = json::list(case, "steps")?;
    for (index, step) in steps.iter().enumerate() {
        json::only(step, &["grads", "expect"])?;
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        let off = |param: &ArrayD<R>| vec![extra(param.shape(), index + 1); param.len()];
        let extra = params.iter().map(|(name, param)| (name.clone(), off(param))).collect();
        check_parameters(step, "expect", &params, tolerance, &extra)
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    match case.get("final_state") {
        Some(_) => {
            let expected = json::object(case, "final_state")?;
            check_state(&opt.state_dict(), steps.len(), &params, expected)
        }
        None => Ok(()),
    }
}

/// Runs a case in its own type of numbers.
pub(super) fn run<C: MatrixMethod>(
    case: &Value,
    method: C,
    tolerance: Tolerance,
    extra: impl Fn(&[usize], usize) -> f64,
) -> Outcome {
    match json::text(case, "dtype")? {
        "f64" => {
            let opt = method.build::<f64>()?.with_non_finite(NonFinite::Propagate);
            steps(case, opt, tolerance, extra)
        }
        "f32" => {
            let opt = method.build::<f32>()?.with_non_finite(NonFinite::Propagate);
            steps(case, opt, tolerance, extra)
        }
        other => Err(skip(format!("the runner does not know the type `{other}`"))),
    }
}

/// `torch.optim.Muon`, and the same with its iteration in `f64`; options that are left out have the
/// defaults of both.
pub fn muon(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let exact_factor = options.text("method") == "polar";
    let default = Muon::default();
    let adjust_lr = match options.text("adjust_lr_fn") {
        "match_rms_adamw" => LrAdjustment::MatchRmsAdamW,
        "spectral_unclamped" => LrAdjustment::Spectral,
        _ => LrAdjustment::Original,
    };
    let orthogonalization = match options.get("ns_coefficients").map(json::numbers).transpose()? {
        _ if exact_factor => Orthogonalization::Exact,
        Some(triple) => match triple[..] {
            [a, b, c] => Orthogonalization::Custom([a, b, c]),
            _ => return Err(fail("`ns_coefficients` are no three numbers")),
        },
        None => default.orthogonalization,
    };
    let nesterov = options.get("nesterov").and_then(Value::as_bool);
    let method = Muon {
        lr: options.number_or("lr", default.lr)?,
        momentum: options.number_or("momentum", default.momentum)?,
        nesterov: nesterov.unwrap_or(default.nesterov),
        weight_decay: options.number_or("weight_decay", default.weight_decay)?,
        orthogonalization,
        ns_steps: options.number_or("ns_steps", default.ns_steps as f64)? as usize,
        eps: options.number_or("eps", default.eps)?,
        adjust_lr,
        ..default
    };
    options.finish()?;
    if !json::text(case, "origin")?.starts_with("torch") {
        return run(case, method, TIGHT, |_, _| 0.0);
    }
    // PyTorch iterates in bfloat16. Looser than 2 % of the learning rate a step, because its own
    // rounding is larger: 2⁻⁹ per entry and product, which five steps of slope 3.4 at zero carry to
    // 6 % for one matrix of these shapes in a hundred, and to 17 % for one of 4 × 4 in a thousand, so the
    // first step has the room of two. The cases in `f64` are held to 1e-9.
    let by = method.clone();
    run(case, method, TIGHT, move |shape, step| {
        0.08 * by.lr * by.lr_factor(shape) * step.max(2) as f64
    })
}

/// Scion with the exact orthogonal factor; matrices that have a norm of their own are groups.
pub fn scion(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let method = Scion {
        lr: options.number("lr")?,
        momentum: options.number("momentum")?,
        scale: options.number("scale")?,
        unconstrained: options.flag("unconstrained"),
        ..Scion::default()
    };
    let norms = options.get("norms").and_then(Value::as_object);
    options.finish()?;
    let (averages, radius) = (method.momentum < 1.0, method.lr * method.scale);
    let mut opt = method.build::<f64>()?.with_non_finite(NonFinite::Propagate);
    for (name, norm) in norms.into_iter().flatten() {
        let norm = match norm.as_str() {
            Some("spectral") => ScionNorm::Spectral {
                normalized: true,
                max: false,
                orthogonalization: Orthogonalization::Exact,
                steps: 1,
                eps: 0.0,
            },
            Some("sign") => ScionNorm::Sign { normalized: true },
            Some("col") => ScionNorm::ColNorm { normalized: false, transpose: false },
            Some("row") => ScionNorm::RowNorm { normalized: true, transpose: false },
            Some("rms") => ScionNorm::BiasRms,
            _ => return Err(fail(format!("the norm {norm} is not understood"))),
        };
        opt = opt.with_group(Select::name(name), |options| options.norm = norm)?;
    }
    json::only(case, &["optimizer", "origin", "dtype", "config", "params", "steps", "notes"])?;
    let spectral =
        |name: &str| norms.is_some_and(|norms| norms.get(name) == Some(&"spectral".into()));
    let mut params = parameters::<f64>(case)?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        // numpy's U Vᵀ of a matrix of zeros is the unit matrix; here it has no direction
        for (name, param) in params.iter_mut().filter(|(name, _)| spectral(name) && !averages) {
            let zero = matches!(grads.get(name), Some(Some(g)) if g.iter().all(|g| *g == 0.0));
            if let (true, &[rows, inputs, ref places @ ..]) = (zero, &param.shape().to_vec()[..]) {
                let (places, columns) =
                    (places.iter().product::<usize>(), param.len() / rows.max(1));
                let unit = radius * (rows as f64 / inputs as f64).sqrt() / places as f64;
                param.iter_mut().step_by(columns + 1).take(rows).for_each(|p| *p -= unit);
            }
        }
        check_parameters(step, "expect", &params, TIGHT, &Default::default())
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// 4-bit Shampoo, and its relatives with other numbers of bits.
pub fn quantized_shampoo(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let (lr, weight_decay) = (options.number("lr")?, options.number("weight_decay")?);
    let (momentum, nesterov) = (options.number("momentum")?, options.flag("nesterov"));
    let (betas, eps) = (options.pair("betas")?, options.number("adam_eps")?);
    let matrix_eps = options.number("matrix_eps")?;
    let start = options.count("start")? as u64;
    // ε = 1e-6 amplifies rounding; the authors' code differs by as much from one BLAS to the next
    let authors = options.text("qr_sign") == "lapack";
    let atol = if authors || matrix_eps < 1e-5 { 1e-7 } else { 1e-8 };
    let tolerance = Tolerance { rtol: 1e-8, atol };
    match options.text("base") {
        "sgdm" => {
            let inner = Sgd { lr, momentum, nesterov, weight_decay, ..Sgd::default() };
            let method = shampoo(inner, matrix_eps, start, &mut options)?;
            options.finish()?;
            run(case, method, tolerance, |_, _| 0.0)
        }
        "adamw" => {
            let inner = AdamW { lr, betas, eps, weight_decay, ..AdamW::default() };
            let method = shampoo(inner, matrix_eps, start, &mut options)?;
            options.finish()?;
            run(case, method, tolerance, |_, _| 0.0)
        }
        other => Err(skip(format!("the runner does not know the base `{other}`"))),
    }
}

fn shampoo<U: Rule + Default>(
    inner: U,
    matrix_eps: f64,
    start: u64,
    options: &mut Options<'_>,
) -> Outcome<Shampoo<U>> {
    let codec = MatrixCodec {
        bits: options.count("bits")? as u8,
        block_size: options.count("block")?,
        map: match options.text("mapping") {
            "dt" => MatrixMap::DynamicTree,
            _ => MatrixMap::Linear2,
        },
    };
    let naive = options.flag("naive");
    let root_mode = options.get("inv_root_mode").and_then(Value::as_u64);
    let newton = naive || root_mode == Some(1);
    let (rectify_update, rectify_root) = if naive {
        (0, 0)
    } else {
        let (update, root) = (options.count("rect_t1")?, options.count("rect_t2")?);
        // the authors' code rebuilds A as for an update where products alone make the root
        (update, if newton { update } else { root })
    };
    let storage = match (codec.bits, naive) {
        (3 | 4 | 8, true) => FactorStorage::Naive(codec),
        (3 | 4 | 8, false) => FactorStorage::QuantizedEigen { codec, rectify_update, rectify_root },
        (_, true) => FactorStorage::Dense,
        (_, false) => FactorStorage::Eigen,
    };
    Ok(Shampoo {
        inner,
        storage,
        factor_beta: options.number("stat_decay")?,
        initial: matrix_eps,
        damping: Damping::relative(matrix_eps),
        root: if newton {
            RootSolver::CoupledNewton(CoupledNewton {
                max_iterations: 10,
                accept: None,
                retry: None,
                ..CoupledNewton::SCALABLE
            })
        } else {
            RootSolver::Eigen
        },
        qr_signs: match options.text("qr_sign") {
            "lapack" => QrSigns::Lapack,
            _ => QrSigns::Positive,
        },
        start,
        update_factors_every: options.count("T1")? as u64,
        update_roots_every: options.count("T2")? as u64,
        max_dim: options.count("prec_maxorder")?,
        min_numel: options.count("min_lowbit_size")?,
        ..Shampoo::default()
    })
}
