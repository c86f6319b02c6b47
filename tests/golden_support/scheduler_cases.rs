//! Numbers of PyTorch's schedulers and training utilities, and of the closed forms outside PyTorch.
//!
//! Every key of a case's `config` is read; one that is not understood is an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use crate::support::Mock;
use crate::support::golden::{Config, Outcome, close, list, number, numbers, text};
use eigenstep::gradient::{
    AdaptiveClip, ClipNorm, GradScaler, LossScaling, clip_grad_value, materialize,
};
use eigenstep::numeric::Element;
use eigenstep::schedule::*;
use ndarray::{ArrayD, IxDyn};
use serde_json::Value;

/// Runs one case of the folder `schedulers`.
pub fn run_scheduler_case(case: &Value) -> Outcome {
    if case.get("kernel").is_some() {
        list(&case["cases"])?
            .iter()
            .enumerate()
            .try_for_each(|(i, one)| kernel_case(case, one).map_err(|e| format!("case {i}: {e}")))
    } else if case.get("multiplier").is_some() {
        multiplier_case(case)
    } else if case["scheduler"] == "ReduceLROnPlateau" {
        plateau_case(case)
    } else if case.get("closed_form").is_some() {
        closed_form_case(case)
    } else {
        step_case(case)
    }
}

// ----------------------------------------------------------------------------- schedules

fn anneal(c: &Config) -> Outcome<Anneal> {
    match c.text("anneal_strategy", "cos")? {
        "cos" => Ok(Anneal::Cos),
        "linear" => Ok(Anneal::Linear),
        other => Err(format!("anneal_strategy {other}")),
    }
}

fn factor(formula: &Value) -> Outcome<Box<dyn Fn(u64) -> f64 + Send + Sync>> {
    Ok(match formula.as_str() {
        Some("1/(1+0.1*e)") => Box::new(|e| 1.0 / (1.0 + 0.1 * e as f64)),
        Some("0.95**e") => Box::new(|e| 0.95f64.powf(e as f64)),
        Some("0.9 if e%5==0 else 1.0") => Box::new(|e| if e % 5 == 0 { 0.9 } else { 1.0 }),
        _ => return Err(format!("lambda {formula}")),
    })
}

fn build(label: &str, config: &Value) -> Outcome<Box<dyn Schedule>> {
    let c = Config::new(config)?;
    let schedule = torch_schedule(label, &c)?;
    c.finish()?;
    Ok(schedule)
}

fn torch_schedule(label: &str, c: &Config) -> Outcome<Box<dyn Schedule>> {
    Ok(match label {
        "LambdaLR" => Box::new(match c.get("lambda").ok_or("no lambda")? {
            Value::Array(each) => {
                Lambda::per_group(each.iter().map(factor).collect::<Outcome<_>>()?)
            }
            one => Lambda::new(factor(one)?),
        }),
        "MultiplicativeLR" => {
            Box::new(Multiplicative::new(factor(c.get("lambda").ok_or("no lambda")?)?))
        }
        "StepLR" => {
            Box::new(Step { step_size: c.count("step_size", 0)?, gamma: c.number("gamma", 0.1)? })
        }
        "MultiStepLR" => {
            let milestones = numbers(c.get("milestones").ok_or("no milestones")?)?;
            let milestones = milestones.into_iter().map(|m| m as u64).collect();
            Box::new(MultiStep { milestones, gamma: c.number("gamma", 0.1)? })
        }
        "ConstantLR" => Box::new(Constant {
            factor: c.number("factor", 1.0 / 3.0)?,
            total_iters: c.count("total_iters", 5)?,
        }),
        "LinearLR" => Box::new(Linear {
            start_factor: c.number("start_factor", 1.0 / 3.0)?,
            end_factor: c.number("end_factor", 1.0)?,
            total_iters: c.count("total_iters", 5)?,
        }),
        "ExponentialLR" => Box::new(Exponential { gamma: c.number("gamma", f64::NAN)? }),
        "PolynomialLR" => Box::new(Polynomial {
            total_iters: c.count("total_iters", 5)?,
            power: c.number("power", 1.0)?,
        }),
        "CosineAnnealingLR" => Box::new(CosineAnnealing {
            t_max: c.count("T_max", 0)?,
            eta_min: c.number("eta_min", 0.0)?,
        }),
        "CosineAnnealingWarmRestarts" => Box::new(CosineRestarts {
            t_0: c.count("T_0", 0)?,
            t_mult: c.count("T_mult", 1)?,
            eta_min: c.number("eta_min", 0.0)?,
        }),
        "SWALR" => Box::new(SwaLr {
            swa_lr: c.per_group("swa_lr", 0.0.into())?,
            anneal_epochs: c.count("anneal_epochs", 10)?,
            anneal: anneal(c)?,
        }),
        "CyclicLR" => Box::new(cyclic(c)?),
        "OneCycleLR" => Box::new(one_cycle(c)?),
        "SequentialLR" => {
            let milestones = numbers(c.get("milestones").ok_or("no milestones")?)?;
            let mut parts = parts(c)?.into_iter();
            let first = Sequential::new(parts.next().ok_or("no parts")?);
            let rest = milestones.into_iter().zip(parts);
            Box::new(rest.fold(first, |all, (milestone, part)| all.then(milestone as u64, part)))
        }
        "ChainedScheduler" => {
            let mut parts = parts(c)?.into_iter();
            let first = Chained::new(parts.next().ok_or("no parts")?);
            Box::new(parts.fold(first, Chained::and))
        }
        other => return Err(format!("scheduler {other} is not known")),
    })
}

fn parts(c: &Config) -> Outcome<Vec<Box<dyn Schedule>>> {
    let part = |part: &Value| build(part[0].as_str().ok_or("no label")?, &part[1]);
    list(c.get("parts").ok_or("no parts")?)?.iter().map(part).collect()
}

fn cyclic(c: &Config) -> Outcome<Cyclic> {
    let defaults = Cyclic::default();
    let gamma = c.number("gamma", 1.0)?;
    Ok(Cyclic {
        base_lr: c.per_group("base_lr", defaults.base_lr)?,
        max_lr: c.per_group("max_lr", defaults.max_lr)?,
        step_size_up: c.count("step_size_up", defaults.step_size_up)?,
        step_size_down: match c.get("step_size_down") {
            Some(value) => Some(value.as_u64().ok_or("step_size_down")?),
            None => None,
        },
        mode: match c.text("mode", "triangular")? {
            "triangular" => CyclicMode::Triangular,
            "triangular2" => CyclicMode::Triangular2,
            "exp_range" => CyclicMode::ExpRange { gamma },
            other => return Err(format!("mode {other}")),
        },
        cycle_momentum: c.flag("cycle_momentum", true)?,
        base_momentum: c.per_group("base_momentum", defaults.base_momentum)?,
        max_momentum: c.per_group("max_momentum", defaults.max_momentum)?,
    })
}

fn one_cycle(c: &Config) -> Outcome<OneCycle> {
    let defaults = OneCycle::default();
    let epochs = c.count("epochs", 0)? * c.count("steps_per_epoch", 0)?;
    Ok(OneCycle {
        max_lr: c.per_group("max_lr", defaults.max_lr)?,
        total_steps: c.count("total_steps", epochs)?,
        pct_start: c.number("pct_start", defaults.pct_start)?,
        anneal: anneal(c)?,
        cycle_momentum: c.flag("cycle_momentum", true)?,
        base_momentum: c.per_group("base_momentum", defaults.base_momentum)?,
        max_momentum: c.per_group("max_momentum", defaults.max_momentum)?,
        div_factor: c.number("div_factor", defaults.div_factor)?,
        final_div_factor: c.number("final_div_factor", defaults.final_div_factor)?,
        three_phase: c.flag("three_phase", false)?,
    })
}

fn mock(case: &Value) -> Outcome<Mock> {
    let base_lrs = numbers(&case["base_lrs"])?;
    let adam = case["optimizer"].as_str().is_some_and(|name| name.starts_with("Adam"));
    Ok(if adam { Mock::adam(&base_lrs) } else { Mock::sgd(&base_lrs) })
}

fn compare(opt: &Mock, expected: &Value) -> Outcome {
    for (key, option) in [("lr", "lr"), ("momentum", "momentum"), ("beta1", "betas.0")] {
        if let Some(values) = expected.get(key) {
            close(key, &opt.options(option), &numbers(values)?, 1e-12, 1e-16)?;
        }
    }
    Ok(())
}

fn step_case(case: &Value) -> Outcome {
    let schedule = build(case["scheduler"].as_str().ok_or("no scheduler")?, &case["config"])?;
    let mut opt = mock(case)?;
    let mut scheduler = LrScheduler::new(schedule, &mut opt).map_err(text)?;
    compare(&opt, &case["after_construction"]).map_err(|e| format!("construction: {e}"))?;
    for (i, expected) in list(&case["steps"])?.iter().enumerate() {
        scheduler.step(&mut opt).map_err(text)?;
        compare(&opt, expected).map_err(|e| format!("step {}: {e}", i + 1))?;
    }
    Ok(())
}

fn closed_form_case(case: &Value) -> Outcome {
    let schedule = build(case["scheduler"].as_str().ok_or("no scheduler")?, &case["config"])?;
    let mut opt = mock(case)?;
    let mut scheduler = LrScheduler::new(schedule, &mut opt).map_err(text)?;
    for expected in list(&case["closed_form"])? {
        let epoch = number(&expected["epoch"])?;
        scheduler.step_to(epoch, &mut opt).map_err(text)?;
        compare(&opt, expected).map_err(|e| format!("epoch {epoch}: {e}"))?;
    }
    Ok(())
}

fn plateau_case(case: &Value) -> Outcome {
    let c = Config::new(&case["config"])?;
    let defaults = ReduceOnPlateau::default();
    let config = ReduceOnPlateau {
        mode: match c.text("mode", "min")? {
            "min" => PlateauMode::Min,
            "max" => PlateauMode::Max,
            other => return Err(format!("mode {other}")),
        },
        factor: c.number("factor", defaults.factor)?,
        patience: c.count("patience", defaults.patience)?,
        threshold: c.number("threshold", defaults.threshold)?,
        threshold_mode: match c.text("threshold_mode", "rel")? {
            "rel" => ThresholdMode::Rel,
            "abs" => ThresholdMode::Abs,
            other => return Err(format!("threshold_mode {other}")),
        },
        cooldown: c.count("cooldown", defaults.cooldown)?,
        min_lr: c.per_group("min_lr", defaults.min_lr)?,
        eps: c.number("eps", defaults.eps)?,
    };
    c.finish()?;
    let mut opt = mock(case)?;
    let mut scheduler = PlateauScheduler::new(config, &opt).map_err(text)?;
    for (i, expected) in list(&case["steps"])?.iter().enumerate() {
        scheduler.step(number(&expected["metric"])?, &mut opt).map_err(text)?;
        compare(&opt, expected).map_err(|e| format!("step {}: {e}", i + 1))?;
        let found = [
            scheduler.best(),
            scheduler.num_bad_epochs() as f64,
            scheduler.cooldown_counter() as f64,
        ];
        let keys = ["best", "num_bad_epochs", "cooldown_counter"];
        let expected = keys.map(|key| number(&expected[key]).unwrap_or(f64::NAN));
        close("best, bad, cooldown", &found, &expected, 0.0, 0.0)?;
    }
    Ok(())
}

fn multiplier_case(case: &Value) -> Outcome {
    let c = Config::new(&case["config"])?;
    let (warmup, total) = (c.count("warmup", 0)?, c.count("total", 1)?);
    let min_ratio = c.number("min_ratio", 0.0)?;
    let warmup_from_one = false;
    let schedule: Box<dyn Schedule> = match c.text("kind", "")? {
        "wsd" => Box::new(Wsd {
            warmup,
            stable: c.count("stable", 0)?,
            decay: c.count("decay", 0)?,
            min_ratio,
            cooldown: match c.text("cooldown", "")? {
                "cosine" => Cooldown::Cosine,
                "1-sqrt" => Cooldown::OneMinusSqrt,
                "linear" => Cooldown::Linear,
                "1-square" => Cooldown::OneMinusSquare,
                other => return Err(format!("cooldown {other}")),
            },
            warmup_from_one,
        }),
        "inverse_sqrt" => {
            let timescale = c.get("timescale").map(|v| v.as_u64().unwrap_or(0));
            Box::new(InverseSqrt { warmup, timescale, warmup_from_one })
        }
        "rex" => Box::new(Rex { total, min_ratio }),
        "noam" => Box::new(Noam { d_model: c.count("d_model", 0)?, warmup }),
        "warmup_cosine" => Box::new(WarmupCosine { warmup, total, min_ratio, warmup_from_one }),
        "warmup_linear" => Box::new(WarmupLinear { warmup, total, min_ratio, warmup_from_one }),
        "hard_restarts" => {
            let cycles = c.count("cycles", 1)?;
            Box::new(WarmupCosineRestarts { warmup, total, cycles, min_ratio, warmup_from_one })
        }
        "polynomial" => {
            let (lr_end, power) = (c.number("lr_end", 1e-7)?, c.number("power", 1.0)?);
            Box::new(WarmupPolynomial { warmup, total, lr_end, power, warmup_from_one })
        }
        "cycles" => Box::new(CosineCycles {
            t_initial: c.count("t_initial", 1)?,
            lr_min: c.number("lr_min", 0.0)?,
            cycle_mul: c.number("cycle_mul", 1.0)?,
            cycle_decay: c.number("cycle_decay", 1.0)?,
            cycle_limit: c.count("cycle_limit", 1)?,
            warmup,
            warmup_lr_init: c.number("warmup_lr_init", 0.0)?,
            warmup_prefix: c.flag("warmup_prefix", false)?,
            k_decay: c.number("k_decay", 1.0)?,
        }),
        "piecewise" => {
            let point = |point: &Value| Some((point[0].as_u64()?, number(&point[1]).ok()?));
            let list = c.get("points").and_then(Value::as_array).ok_or("no points")?;
            let points = list.iter().map(point).collect::<Option<_>>().ok_or("points")?;
            let interpolation = match c.text("interpolation", "")? {
                "linear" => Interpolation::Linear,
                "cosine" => Interpolation::Cosine,
                other => return Err(format!("interpolation {other}")),
            };
            Box::new(Piecewise { points, interpolation })
        }
        other => return Err(format!("kind {other}")),
    };
    c.finish()?;
    schedule.check(1).map_err(text)?;
    let expected = numbers(&case["multiplier"])?;
    close("lr", &curve(&*schedule, 1.0, expected.len()), &expected, 1e-12, 1e-16)
}

// ------------------------------------------------------------------------------- kernels

fn kernel_case(file: &Value, case: &Value) -> Outcome {
    let c = Config::new(&case["config"])?;
    let (input, expect) = (&case["input"], &case["expect"]);
    match file["kernel"].as_str().unwrap_or("") {
        "clip_grad_norm" => {
            if c.text("dtype", "f64")? == "f32" {
                clip_norm_case(&c, input, expect, |x| x as f32, 4e-6)?
            } else {
                clip_norm_case(&c, input, expect, |x| x, 1e-12)?
            }
        }
        "clip_grad_value" => {
            let grads = array(&numbers(input)?, None)?;
            let clipped = clip_grad_value(&grads, c.number("clip_value", f64::NAN)?);
            let copy = materialize(&clipped).map_err(text)?;
            close(
                "clipped",
                &copy["param"].clone().into_raw_vec_and_offset().0,
                &numbers(expect)?,
                0.0,
                0.0,
            )?;
        }
        "adaptive_gradient_clipping" => {
            let clip = AdaptiveClip {
                clipping: c.number("clipping", f64::NAN)?,
                eps: c.number("eps", f64::NAN)?,
            };
            close("grad_eps", &[c.number("grad_eps", 0.0)?], &[1e-6], 0.0, 0.0)?;
            let shape: Vec<usize> = numbers(&input["shape"])?.iter().map(|&d| d as usize).collect();
            let mut param = array(&numbers(&input["param"])?, Some(&shape))?;
            let mut grad = array(&numbers(&input["grad"])?, Some(&shape))?;
            clip.apply(&mut param, &mut grad).map_err(text)?;
            close("clipped", &grad.into_raw_vec_and_offset().0, &numbers(expect)?, 1e-12, 0.0)?;
        }
        "grad_scaler" => grad_scaler_case(&c, input, expect)?,
        "layerwise_lr_decay" => {
            let rates = LayerwiseLr {
                lr: c.number("base_lr", f64::NAN)?,
                decay: c.number("decay", f64::NAN)?,
                num_layers: number(&input["num_layers"])? as usize,
            }
            .checked()
            .map_err(text)?;
            let layers: Vec<f64> = (0..rates.num_layers).map(|i| rates.layer(i)).collect();
            close("layers", &layers, &numbers(&expect["layers"])?, 1e-12, 0.0)?;
            let ends = [rates.embedding(), rates.head()];
            let expected = [number(&expect["embedding"])?, number(&expect["head"])?];
            close("ends", &ends, &expected, 1e-12, 0.0)?;
        }
        other => return Err(format!("kernel {other} is not known")),
    }
    c.finish()
}

fn array(values: &[f64], shape: Option<&[usize]>) -> Outcome<ArrayD<f64>> {
    let shape = shape.map_or_else(|| vec![values.len()], <[usize]>::to_vec);
    ArrayD::from_shape_vec(IxDyn(&shape), values.to_vec()).map_err(text)
}

fn clip_norm_case<T: Element>(
    c: &Config,
    input: &Value,
    expect: &Value,
    cast: fn(f64) -> T,
    rtol: f64,
) -> Outcome {
    let shapes: [&[usize]; 4] = [&[3, 4], &[5], &[2, 3, 2, 2], &[]];
    let inputs = list(input)?;
    let grads = inputs.iter().enumerate().map(|(i, values)| {
        let values = numbers(values)?;
        let shape = if inputs.len() == 4 { shapes[i] } else { &[values.len()] };
        Ok(array(&values, Some(shape))?.mapv(cast))
    });
    let grads: Vec<ArrayD<T>> = grads.collect::<Outcome<_>>()?;
    let clip = ClipNorm {
        max_norm: c.number("max_norm", f64::NAN)?,
        norm_type: c.number("norm_type", 2.0)?,
        error_if_nonfinite: c.flag("error_if_nonfinite", false)?,
    };
    let clipped = clip.clip(&grads).map_err(text)?;
    let strict = ClipNorm { error_if_nonfinite: true, ..clip }.clip(&grads).is_err();
    if strict != expect.get("error_if_error_if_nonfinite").is_some() {
        return Err("error_if_nonfinite".into());
    }
    close("norm", &[clipped.norm()], &[number(&expect["total_norm"])?], rtol, 0.0)?;
    let copies = materialize(&clipped).map_err(text)?;
    for (i, expected) in list(&expect["grads"])?.iter().enumerate() {
        let copy = &copies[&i.to_string()];
        let found: Vec<f64> =
            copy.iter().map(|&x| num_traits::ToPrimitive::to_f64(&x.load()).unwrap()).collect();
        close(&format!("grads {i}"), &found, &numbers(expected)?, rtol, 0.0)?;
    }
    Ok(())
}

fn grad_scaler_case(c: &Config, input: &Value, expect: &Value) -> Outcome {
    let mut scaler = GradScaler::new(LossScaling {
        init_scale: c.number("init_scale", f64::NAN)?,
        growth_factor: c.number("growth_factor", f64::NAN)?,
        backoff_factor: c.number("backoff_factor", f64::NAN)?,
        growth_interval: c.count("growth_interval", 0)?,
        ..LossScaling::default()
    })
    .map_err(text)?;
    let expected = list(&expect["scale_and_tracker"])?;
    for (found_inf, expected) in list(&input["found_inf"])?.iter().zip(expected) {
        let bad = found_inf.as_bool().ok_or("found_inf")?;
        let grads = ndarray::array![1.0f32, if bad { f32::INFINITY } else { 1.0 }];
        let (mut opt, mut params) = (Mock::sgd(&[0.1]), ndarray::array![0.0f32, 0.0]);
        let stepped = scaler.step(&mut opt, &mut params, &grads).map_err(text)?;
        if stepped == bad || opt.steps != usize::from(stepped) {
            return Err("a step is skipped if and only if something is not finite".into());
        }
        scaler.update().map_err(text)?;
        let found = [scaler.current_scale(), scaler.growth_tracker() as f64];
        close("scale, tracker", &found, &numbers(expected)?, 0.0, 0.0)?;
    }
    Ok(())
}
