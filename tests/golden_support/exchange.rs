//! Gradients exchanged between virtual workers.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "the indices are workers and steps of one case"
)]

use super::compare::Tolerance;
use super::matrix_runs::Options;
use super::{Outcome, fail, json, skip};
use eigenstep::distributed::{
    CompressedAllReduce, Feedback, GradExchange, LocalComm, PowerSgd, PowerSgdOrder,
};
use eigenstep::error_feedback::Selection;
use eigenstep::error_feedback::compressor::{Compressor, Identity, ScaledSign, TopK};
use ndarray::{Array1, Array2};
use serde_json::Value;
use std::thread;

const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-12 };

fn matrix(value: &Value, shape: (usize, usize)) -> Outcome<Array2<f64>> {
    Array2::from_shape_vec(shape, json::numbers(value)?).map_err(|error| fail(error.to_string()))
}

fn lists(value: &Value, key: &str) -> Outcome<Vec<Vec<f64>>> {
    json::list(value, key)?.iter().map(json::numbers).collect()
}

/// Runs `work` for every worker in a thread of its own.
fn workers<X: Send>(
    count: usize,
    work: impl Fn(usize, LocalComm) -> Outcome<X> + Sync,
) -> Outcome<Vec<X>> {
    let comms = LocalComm::workers(count)?;
    thread::scope(|scope| {
        let work = &work;
        let start = |(rank, comm)| scope.spawn(move || work(rank, comm));
        let threads: Vec<_> = comms.into_iter().enumerate().map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Outcome<X>>| {
            thread.join().map_err(|_| fail("a worker panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

/// Quadratics that differ from worker to worker.
pub fn quadratics(case: &Value) -> Outcome {
    json::only(case, &["optimizer", "origin", "dtype", "problem", "runs", "notes"])?;
    let problem = json::field(case, "problem")?;
    let (count, dim) = (json::count(problem, "workers")?, json::count(problem, "dim")?);
    for (index, run) in json::list(case, "runs")?.iter().enumerate() {
        quadratic(problem, (count, dim), run).map_err(|stop| stop.at(format!("run {index}")))?;
    }
    Ok(())
}

fn quadratic(problem: &Value, (count, dim): (usize, usize), run: &Value) -> Outcome {
    json::only(run, &["method", "config", "noise", "steps", "distance_to_optimum"])?;
    let mut options = Options::new(run)?;
    let (method, lr) = (json::text(run, "method")?, options.number("lr")?);
    let full_start = options.text("init") == "full_gradient";
    let (momentum, eta) = (options.number_or("momentum", 0.0)?, options.number_or("eta", 0.0)?);
    let k = options.number_or("k", 0.0)? as usize;
    let kind = options.text("compressor");
    options.finish()?;
    let compressor = || -> Outcome<Box<dyn Compressor<f64>>> {
        Ok(match kind {
            "top_k" => Box::new(TopK(Selection::Count { k })),
            "identity" => Box::new(Identity),
            "scaled_sign" => Box::new(ScaledSign),
            other => return Err(skip(format!("no compressor `{other}`"))),
        })
    };
    let b = lists(problem, "b")?;
    let optimum = Array1::from(json::numbers(json::field(problem, "x_star")?)?);
    let steps = json::list(run, "steps")?;
    let noise = json::list(problem, "noise")?;
    let noisy = json::text(run, "noise")? == "shared";
    // per worker: positions, and squared lengths of e and h, step by step
    let traces = workers(count, |rank, comm| {
        let a = json::list(problem, "A")?.get(rank).ok_or_else(|| fail("too few matrices"))?;
        let a = matrix(a, (dim, dim))?;
        let b = Array1::from(b[rank].clone());
        let inside = method == "ec_sgd_lr_inside";
        let feedback = match method {
            "compressed_sgd" => Feedback::Plain,
            "ec_sgd" | "ec_sgd_lr_inside" => Feedback::Ec,
            "ef21" | "ef21_sgdm" => Feedback::Ef21 { momentum, full_start },
            "ec_ideal" => Feedback::EcIdeal { optimum: (a.dot(&optimum) - &b).to_vec() },
            "econtrol" => Feedback::EControl { eta: Some(eta), full_start },
            other => return Err(skip(format!("no exchange `{other}`"))),
        };
        let mut exchange = CompressedAllReduce::new(feedback, compressor()?)?;
        let mut x = Array1::from(json::numbers(json::field(problem, "x0")?)?);
        let mut trace = Vec::new();
        for step in 0..steps.len() {
            let mut g = a.dot(&x) - &b;
            if noisy {
                let all = noise[step].as_array().ok_or_else(|| fail("no noise"))?;
                g += &Array1::from(json::numbers(&all[rank])?);
            }
            // the learning rate in front of the feedback, or behind it
            let (before, after) = if inside { (lr, 1.0) } else { (1.0, lr) };
            let mut g = (g * before).to_vec();
            exchange.exchange(&comm, &mut g)?;
            x -= &(Array1::from(g) * after);
            let square = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
            trace.push((x.to_vec(), square(exchange.error()), square(exchange.estimate())));
        }
        Ok(trace)
    })?;
    for (index, step) in steps.iter().enumerate() {
        let at = |stop: super::Stop| stop.at(format!("step {}", index + 1));
        let expected = json::numbers(json::field(step, "x")?)?;
        for trace in &traces {
            TOLERANCE.slice("x", &trace[index].0, &expected).map_err(at)?;
        }
        let number = |key: &str| json::number(json::field(step, key)?);
        let errors: f64 = traces.iter().map(|trace| trace[index].1).sum();
        let estimates: f64 = traces.iter().map(|trace| trace[index].2).sum();
        TOLERANCE.number("e_norm", errors.sqrt(), number("e_norm")?).map_err(at)?;
        TOLERANCE.number("h_norm", estimates.sqrt(), number("h_norm")?).map_err(at)?;
    }
    let last = traces.first().and_then(|trace| trace.last()).ok_or_else(|| fail("no steps"))?;
    let off = (Array1::from(last.0.clone()) - optimum).mapv(|x| x * x).sum().sqrt();
    let expected = json::number(json::field(run, "distance_to_optimum")?)?;
    TOLERANCE.number("distance_to_optimum", off, expected)
}

pub fn power_sgd(case: &Value, order: PowerSgdOrder) -> Outcome {
    json::only(
        case,
        &[
            "optimizer",
            "origin",
            "dtype",
            "config",
            "shape",
            "workers",
            "initial_p",
            "initial_q",
            "steps",
            "notes",
        ],
    )?;
    let mut options = Options::new(case)?;
    let (rank, eps) = (options.count("rank")?, options.number_or("eps", 0.0)?);
    let feedback = options.get("error_feedback").and_then(Value::as_bool).unwrap_or(true);
    options.finish()?;
    let shape = json::shape(case, "shape")?;
    let (rows, columns) = (shape[0], shape[1]);
    let q = matrix(json::field(case, "initial_q")?, (columns, rank))?;
    let p = match case.get("initial_p") {
        Some(p) => matrix(p, (rows, rank))?,
        None => Array2::zeros((rows, rank)),
    };
    let steps = json::list(case, "steps")?;
    workers(json::count(case, "workers")?, |worker, comm| {
        let exchange = PowerSgd::new(rows, columns, rank, 0)?;
        let mut exchange = exchange.with_factors(p.clone(), q.clone())?;
        (exchange.order, exchange.eps) = (order, eps);
        (exchange.error_feedback, exchange.min_compression_rate) = (feedback, 0.0);
        for (index, step) in steps.iter().enumerate() {
            let at = |stop: super::Stop| stop.at(format!("worker {worker}, step {}", index + 1));
            let mut g = lists(step, "grads")?.swap_remove(worker);
            exchange.exchange(&comm, &mut g)?;
            let output = json::numbers(json::field(step, "output")?)?;
            TOLERANCE.slice("output", &g, &output).map_err(at)?;
            let errors = lists(step, "errors")?.swap_remove(worker);
            let loose = Tolerance { atol: 1e-11, ..TOLERANCE };
            loose.slice("errors", exchange.error(), &errors).map_err(at)?;
        }
        Ok(())
    })?;
    Ok(())
}
