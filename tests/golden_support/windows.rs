//! Methods over a window of gradients: M-FAC, GGT, MicroAdam, and their kernels.

use super::compare::{Tolerance, equal};
use super::matrix_runs::Options;
use super::{Outcome, fail, json, skip};
use eigenstep::error_feedback::{
    Compression, CompressorConfig, EfAdagrad, Fisher, Ggt, GgtForm, GradWindow, Horizon,
    LowRankConfig, MFac, MicroAdam, Momentum, Normalization, Residual, ResidualFormat, RowFormat,
    Selection, Shrinkage, SparseConfig, WindowRoot,
};
use eigenstep::optim::{Layout, MethodFor, Optim, VectorMethod};
use eigenstep::prelude::*;
use eigenstep::state::{Scalar, StateDict, StateTensor};
use ndarray::ArrayD;
use serde_json::Value;

/// What the README of the vectors asks for.
const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-12 };

/// Where two algebraic forms of the same step differ by 1e-8.
const SMALL_DAMPING: Tolerance = Tolerance { rtol: 1e-7, atol: 1e-12 };

/// Learning rate, momentum and decay; decay that belongs to the gradient comes back as the second.
pub(super) fn base(options: &mut Options<'_>) -> Outcome<(Momentum, f64)> {
    let lr = options.number("lr")?;
    let momentum = options.number_or("momentum", 0.0)?;
    let dampening = match options.text("momentum_mode") {
        "ema" => momentum,
        _ => 0.0,
    };
    let decay = options.number_or("weight_decay", 0.0)?;
    let base = Momentum { lr, momentum, dampening, ..Momentum::default() };
    Ok(match options.text("wd_mode") {
        "l2" => (base, decay),
        "" | "none" => (base, 0.0),
        "decoupled_lr" => (Momentum { weight_decay: decay, ..base }, 0.0),
        "decoupled_raw" => {
            (Momentum { weight_decay: decay, shrinkage: Shrinkage::Raw, ..base }, 0.0)
        }
        other => return Err(skip(format!("the crate has no weight decay `{other}`"))),
    })
}

/// What is kept of a gradient.
pub(super) fn selection(options: &mut Options<'_>) -> Outcome<Option<Selection>> {
    let density = options.number_or("density", 1.0)?;
    Ok(match options.text("compressor") {
        "" => None,
        "top_k" => Some(Selection::TopK { density }),
        "block_top_k" => Some(Selection::BlockTopK { density, block: options.count("block")? }),
        other => return Err(skip(format!("no optimizer of the crate has `{other}`"))),
    })
}

fn sparse(selection: Option<Selection>) -> Compression {
    match selection {
        Some(selection) => {
            Compression::Sparse(SparseConfig { selection, ..SparseConfig::default() })
        }
        None => Compression::None,
    }
}

pub fn mfac(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let (base, l2) = base(&mut options)?;
    let compression = match options.get("rank") {
        Some(rank) => {
            if options.number_or("eps", 1e-8)? != 1e-8 {
                return Err(skip("Gram-Schmidt has the divisor norm + 1e-8"));
            }
            let rank = json::number(rank)? as usize;
            Compression::LowRank(LowRankConfig { rank, ..LowRankConfig::default() })
        }
        None => sparse(selection(&mut options)?),
    };
    let normalization = match options.text("normalization") {
        "count" => Normalization::Count,
        _ => Normalization::Window,
    };
    let (damping, window) = (options.number("damp")?, options.count("window")?);
    options.finish()?;
    let tolerance = if damping <= 1e-6 { SMALL_DAMPING } else { TOLERANCE };
    let method = MFac { base, window, damping, normalization, l2, compression, ..MFac::default() };
    run(case, method, tolerance)
}

pub fn ggt(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let (base, l2) = base(&mut options)?;
    let compression = sparse(selection(&mut options)?);
    let form = match options.text("form") {
        "newest" => GgtForm::Newest,
        _ => GgtForm::General,
    };
    let (beta1, beta2) = (options.number("beta1")?, options.number("beta2")?);
    let (eps, jitter) = (options.number("eps")?, options.number("jitter")?);
    let window = options.count("window")?;
    options.finish()?;
    let method =
        Ggt { base, window, beta1, beta2, eps, jitter, form, l2, compression, ..Ggt::default() };
    run(case, method, TOLERANCE)
}

pub fn microadam(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let block = options.count("quant_block")?;
    let method = MicroAdam {
        lr: options.number("lr")?,
        betas: options.pair("betas")?,
        eps: options.number("eps")?,
        weight_decay: options.number("weight_decay")?,
        window: options.count("window")?,
        selection: Selection::BlockTopK {
            density: options.number("density")?,
            block: options.count("block")?,
        },
        residual: match options.flag("quantize_error") {
            true => ResidualFormat::Nibble { block },
            false => ResidualFormat::Full,
        },
        bf16_values: false,
        horizon: match options.text("bias_correction") {
            "window" => Horizon::Window,
            _ => Horizon::Step,
        },
        ..MicroAdam::default()
    };
    options.finish()?;
    run(case, method, TOLERANCE)
}

/// Adagrad on sparse gradients.
pub fn ef_adagrad(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let (lr, eps) = (options.number("lr")?, options.number("eps")?);
    let (_, decay) = base(&mut options)?;
    if decay != 0.0 {
        return Err(skip("decay before the feedback"));
    }
    let compressor =
        selection(&mut options)?.map_or(CompressorConfig::Identity, CompressorConfig::TopK);
    options.finish()?;
    let adagrad = Adagrad { lr, eps, ..Adagrad::default() };
    run(case, EfAdagrad { compressor, ..EfAdagrad::rule(adagrad) }, TOLERANCE)
}

/// Steps through a case with its parameters in their order.
pub(super) fn run<V: VectorMethod>(case: &Value, method: V, tolerance: Tolerance) -> Outcome
where
    V::Inner: MethodFor<f64>,
{
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "params", "steps", "notes", "initial_q"],
    )?;
    if json::text(case, "dtype")? != "f64" {
        return Err(skip("the runner knows vectors in f64 only"));
    }
    let listed = json::list(case, "params")?;
    let names = listed.iter().map(|param| json::text(param, "name"));
    let names: Vec<&str> = names.collect::<Outcome<_>>()?;
    let read =
        |param: &Value| json::array(&json::shape(param, "shape")?, json::field(param, "init")?);
    let mut params: Vec<ArrayD<f64>> = listed.iter().map(read).collect::<Outcome<_>>()?;
    let steps = json::list(case, "steps")?;
    let mut opt = match case.get("initial_q") {
        Some(bases) => with_bases(&method, &names, &params, bases)?,
        None => method.build::<f64>()?,
    };
    for (index, step) in steps.iter().enumerate() {
        let at = |stop: super::Stop| stop.at(format!("step {}", index + 1));
        json::only(step, &["grads", "expect", "error_norm", "nnz", "update_nnz"])?;
        let before = params.clone();
        let grad =
            |(name, param): (&&str, &ArrayD<f64>)| match json::field(step, "grads")?.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(value) => json::array(param.shape(), value).map(Some),
            };
        let grads: Vec<Option<ArrayD<f64>>> =
            names.iter().zip(&params).map(grad).collect::<Outcome<_>>()?;
        opt.step(&mut params, &grads)?;
        for (name, param) in names.iter().zip(&params) {
            let found: Vec<f64> = param.iter().copied().collect();
            let expected = json::numbers(json::field(json::field(step, "expect")?, name)?)?;
            tolerance.slice(&format!("parameter `{name}`"), &found, &expected).map_err(at)?;
        }
        measures(step, &opt.state_dict(), (&before, &params), tolerance).map_err(at)?;
    }
    Ok(())
}

/// What a step states beside the parameters: the length of the residual, and how much is kept.
fn measures(
    step: &Value,
    dict: &StateDict,
    (before, after): (&[ArrayD<f64>], &[ArrayD<f64>]),
    tolerance: Tolerance,
) -> Outcome {
    let ending = |end: &'static str| dict.tensors.iter().filter(move |(key, _)| key.ends_with(end));
    if let Some(expected) = step.get("error_norm") {
        let residuals = ending(".residual").flat_map(|(_, tensor)| f64s(tensor));
        let norm = residuals.map(|x| x * x).sum::<f64>().sqrt();
        tolerance.number("error_norm", norm, json::number(expected)?)?;
    }
    if let Some(expected) = step.get("nnz") {
        let rows = ending(".gram").map(|(_, gram)| gram.shape.first().copied().unwrap_or(1));
        let rows = rows.sum::<usize>().max(1);
        let kept: usize = ending(".values").map(|(_, values)| f64s(values).count()).sum();
        equal("nnz", &[kept / rows], &[json::number(expected)? as usize])?;
    }
    if let Some(expected) = step.get("update_nnz") {
        let decays = dict.scalars.get("groups.0.weight_decay") != Some(&Scalar::Float(0.0));
        let pairs = before.iter().flatten().zip(after.iter().flatten());
        let moved = pairs.filter(|(before, after)| before != after).count();
        if !decays {
            equal("update_nnz", &[moved], &[json::number(expected)? as usize])?;
        }
    }
    Ok(())
}

fn f64s(tensor: &StateTensor) -> impl Iterator<Item = f64> + '_ {
    tensor.bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes))
}

/// An optimizer whose power iterations begin with the given factors: the state after a step, with
/// everything but the factors taken back to what it is before the first.
fn with_bases<V: VectorMethod>(
    method: &V,
    names: &[&str],
    params: &[ArrayD<f64>],
    bases: &Value,
) -> Outcome<Optim<eigenstep::optim::Vectored<V>, f64>>
where
    V::Inner: MethodFor<f64>,
{
    let mut opt = method.clone().build::<f64>()?;
    let mut thrown_away = params.to_vec();
    let grads = thrown_away.clone();
    opt.step(&mut thrown_away, &grads)?;
    let mut dict = opt.state_dict();
    for (key, scalar) in &mut dict.scalars {
        if [".step", ".next", ".count"].iter().any(|end| key.ends_with(end)) {
            *scalar = Scalar::Int(0);
        }
    }
    for tensor in dict.tensors.values_mut() {
        tensor.bytes.fill(0);
    }
    for (index, name) in names.iter().enumerate() {
        let Some(basis) = bases.get(name) else { continue };
        let key = format!("vectors.0.matrices.{index}.basis");
        let tensor = dict.tensors.get_mut(&key).ok_or_else(|| fail(format!("no `{key}`")))?;
        let values = json::numbers(json::field(basis, "data")?)?;
        *tensor = StateTensor::new(&json::shape(basis, "shape")?, &values);
    }
    opt.load_state_dict(&dict)?;
    Ok(opt)
}

fn window(rows: &[Vec<f64>], capacity: usize, dim: usize) -> GradWindow<f64> {
    let mut window = GradWindow::new(RowFormat::Dense, capacity, &Layout::single(&[dim]));
    rows.iter().for_each(|row| window.push(&row[..]));
    window
}

fn rows(value: &Value, key: &str) -> Outcome<Vec<Vec<f64>>> {
    json::list(value, key)?.iter().map(json::numbers).collect()
}

/// The product with the inverse Fisher matrix; the published recursion is computed here, and agrees.
pub fn mfac_product(case: &Value) -> Outcome {
    let (input, config) = (json::field(case, "input")?, json::field(case, "config")?);
    let expect = json::field(case, "expect")?;
    let (capacity, dim) = (json::count(config, "window")?, json::count(config, "dim")?);
    let damping = json::number(json::field(config, "damp")?)?;
    let window = window(&rows(input, "grads_in_order_of_insertion")?, capacity, dim);
    let v = json::numbers(json::field(input, "v")?)?;
    let gram: Vec<f64> =
        (0..capacity * capacity).map(|i| window.gram(i / capacity, i % capacity)).collect();
    TOLERANCE.slice("gram", &gram, &rows(expect, "gram")?.concat())?;
    for (key, normalization) in
        [("product", Normalization::Window), ("product_count_normalised", Normalization::Count)]
    {
        let product = Fisher { damping, normalization }.apply(&window, &v)?;
        let expected = json::numbers(json::field(expect, key)?)?;
        let size = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        // the general form subtracts: the reference itself holds to 1e-6
        Tolerance { rtol: 1e-6, atol: 1e-8 * size }.slice(key, &product, &expected)?;
    }
    recursion(&gram, &window.products::<[f64]>(&v), capacity, damping, expect)
}

/// Section 3.2 of the paper: D, its denominators, B and the coefficients of the product.
#[allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "the indices are those of the equations"
)]
fn recursion(gram: &[f64], products: &[f64], m: usize, damping: f64, expect: &Value) -> Outcome {
    let n = m as f64;
    let mut w: Vec<Vec<f64>> =
        gram.chunks(m).map(|row| row.iter().map(|x| x / damping).collect()).collect();
    let mut d = vec![vec![0.0; m]; m];
    for i in 0..m {
        d[i][i..].copy_from_slice(&w[i][i..]);
        for a in i + 1..m {
            for b in i + 1..m {
                w[a][b] -= d[i][a] * d[i][b] / (n + d[i][i]);
            }
        }
    }
    let denominators: Vec<f64> = (0..m).map(|i| n + d[i][i]).collect();
    let mut b = vec![vec![0.0; m]; m];
    for i in 0..m {
        b[i][i] = 1.0 / damping;
        for j in 0..i {
            for k in 0..m {
                b[i][k] -= d[j][i] / denominators[j] * b[j][k];
            }
        }
    }
    let mut q: Vec<f64> = (0..m).map(|i| products.get(i).map_or(0.0, |x| x / damping)).collect();
    for i in 0..m {
        for j in i + 1..m {
            q[j] -= q[i] / denominators[i] * d[i][j];
        }
    }
    let coefficients: Vec<f64> =
        (0..m).map(|k| (0..m).map(|i| q[i] / denominators[i] * b[i][k]).sum()).collect();
    let loose = Tolerance { rtol: 1e-5, atol: 1e-9 / damping };
    loose.slice("d_upper", &d.concat(), &rows(expect, "d_upper")?.concat())?;
    loose.slice(
        "denominators",
        &denominators,
        &json::numbers(json::field(expect, "denominators")?)?,
    )?;
    loose.slice("b_lower", &b.concat(), &rows(expect, "b_lower")?.concat())?;
    let expected = json::numbers(json::field(expect, "coefficients")?)?;
    loose.slice("coefficients", &coefficients, &expected)
}

pub fn ggt_direction(case: &Value) -> Outcome {
    let (input, config) = (json::field(case, "input")?, json::field(case, "config")?);
    let (capacity, dim) = (json::count(config, "window")?, json::count(config, "dim")?);
    let number = |key: &str| json::number(json::field(config, key)?);
    let window = window(&rows(input, "columns")?, capacity, dim);
    let root =
        WindowRoot { eps: number("eps")?, jitter: number("jitter")?, ..WindowRoot::default() };
    let found = root.apply(&window, &json::numbers(json::field(input, "v")?)?)?;
    let expected = json::numbers(json::field(json::field(case, "expect")?, "direction")?)?;
    let size = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    Tolerance { rtol: 1e-7, atol: 1e-9 * size }.slice("direction", &found, &expected)
}

/// The 4-bit codes of a residual.
#[allow(clippy::indexing_slicing, reason = "a missing key fails the case")]
pub fn residual(case: &Value) -> Outcome {
    let (input, config) = (json::field(case, "input")?, json::field(case, "config")?);
    let expect = json::field(case, "expect")?;
    let x = json::numbers(json::field(input, "x")?)?;
    let block = json::count(config, "quant_block")?;
    let mut residual = Residual::<f64>::new(ResidualFormat::Nibble { block }, x.len());
    residual.store(0, (0, 0), &x);
    let mut found = vec![0.0; x.len()];
    residual.load(0, &mut found);
    let expected = json::numbers(json::field(expect, "dequantised")?)?;
    TOLERANCE.slice("dequantised", &found, &expected)?;
    let mut dict = StateDict::new("residual");
    residual.save(&mut eigenstep::state::Record::new("r", &mut dict));
    let packed = &dict.tensors["r.residual.codes"].bytes;
    let expected = json::integers(expect, "packed_high_nibble_first")?;
    equal("packed", &packed.iter().map(|&byte| u32::from(byte)).collect::<Vec<_>>(), &expected)?;
    let ranges: Vec<f64> = f64s(&dict.tensors["r.residual.ranges"]).collect();
    for (offset, key) in ["min", "max"].into_iter().enumerate() {
        let found: Vec<f64> = ranges.iter().skip(offset).step_by(2).copied().collect();
        TOLERANCE.slice(key, &found, &json::numbers(json::field(expect, key)?)?)?;
    }
    Ok(())
}
