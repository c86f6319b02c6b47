//! Every rule against its equations as a plain loop in `f64`, written without looking at the crate.

use crate::first_order::{close, few, norm, path, run};
use eigenstep::prelude::*;
use proptest::prelude::*;

/// Runs `update(t, w, g)` on whole vectors and compares the parameters after every step.
fn check<U: Rule>(
    config: &U,
    (start, grads): &(Vec<f64>, Vec<Vec<f64>>),
    mut update: impl FnMut(i32, &mut [f64], &[f64]),
) {
    let mut w = start.clone();
    for (t, (g, found)) in (1..).zip(grads.iter().zip(path(config, start, grads))) {
        update(t, &mut w, g);
        close(&found, &w, 1e-11);
    }
}

/// As `check`, for rules that treat every element alone; `s` is its state, zeros at first.
fn element_wise<U: Rule>(
    config: &U,
    run: &(Vec<f64>, Vec<Vec<f64>>),
    update: impl Fn(i32, f64, f64, &mut [f64; 3]) -> f64,
) {
    let mut states = vec![[0.0; 3]; run.0.len()];
    check(config, run, |t, w, g| {
        for ((w, g), s) in w.iter_mut().zip(g).zip(&mut states) {
            *w = update(t, *w, *g, s);
        }
    });
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn sgd(run in run(), l in 0.0f64..0.3, mu in 0.1f64..0.95, tau in 0.0f64..0.9, nesterov: bool) {
        let tau = if nesterov { 0.0 } else { tau };
        let config =
            Sgd { lr: 0.1, momentum: mu, dampening: tau, weight_decay: l, nesterov, maximize: false };
        element_wise(&config, &run, |t, p, g, [b, ..]| {
            let g = g + l * p;
            *b = if t == 1 { g } else { mu * *b + (1.0 - tau) * g };
            p - 0.1 * if nesterov { g + mu * *b } else { *b }
        });
    }

    #[test]
    fn adam(run in run(), b1 in 0.0f64..0.99, b2 in 0.0f64..0.999, l in 0.0f64..0.3, amsgrad: bool) {
        let config = Adam {
            lr: 0.1, betas: (b1, b2), eps: 1e-6, weight_decay: l, amsgrad, ..Adam::default()
        };
        element_wise(&config, &run, |t, p, g, [m, v, top]| {
            let g = g + l * p;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *top = top.max(*v);
            let second = if amsgrad { *top } else { *v };
            let d = second.sqrt() / (1.0 - b2.powi(t)).sqrt() + 1e-6;
            p - 0.1 / (1.0 - b1.powi(t)) * *m / d
        });
    }

    #[test]
    fn adamw(run in run(), l in 0.0f64..0.9) {
        let config = AdamW { lr: 0.1, weight_decay: l, ..AdamW::default() };
        element_wise(&config, &run, |t, p, g, [m, v, _]| {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let d = (*v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8;
            p * (1.0 - 0.1 * l) - 0.1 * (*m / (1.0 - 0.9f64.powi(t))) / d
        });
    }

    #[test]
    fn nadam(run in run(), b1 in 0.0f64..0.99, l in 0.0f64..0.3, psi in 0.0f64..0.1, decoupled: bool) {
        let config = NAdam {
            lr: 0.1, betas: (b1, 0.99), eps: 1e-6, weight_decay: l, momentum_decay: psi,
            decoupled_weight_decay: decoupled, ..NAdam::default()
        };
        let mu = |t: i32| b1 * (1.0 - 0.5 * 0.96f64.powf(f64::from(t) * psi));
        element_wise(&config, &run, |t, p, g, [m, v, _]| {
            let (g, p) = if decoupled { (g, p * (1.0 - 0.1 * l)) } else { (g + l * p, p) };
            let product: f64 = (1..=t).map(mu).product();
            *m = b1 * *m + (1.0 - b1) * g;
            *v = 0.99 * *v + 0.01 * g * g;
            let d = (*v / (1.0 - 0.99f64.powi(t))).sqrt() + 1e-6;
            let next = mu(t + 1);
            p - 0.1 * (1.0 - mu(t)) / (1.0 - product) * g / d - 0.1 * next / (1.0 - product * next) * *m / d
        });
    }

    /// Without growth the momentum is half of `β₁` at every step, and its product a power.
    #[test]
    fn nadam_without_momentum_decay_has_a_closed_form(run in run(), b1 in 0.0f64..0.99) {
        let config = NAdam { lr: 0.1, betas: (b1, 0.9), momentum_decay: 0.0, ..NAdam::default() };
        let half = b1 / 2.0;
        element_wise(&config, &run, |t, p, g, [m, v, _]| {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = 0.9 * *v + 0.1 * g * g;
            let d = (*v / (1.0 - 0.9f64.powi(t))).sqrt() + 1e-8;
            let now = (1.0 - half) / (1.0 - half.powi(t)) * g;
            p - 0.1 * (now + half / (1.0 - half.powi(t + 1)) * *m) / d
        });
    }

    #[test]
    fn novograd(
        run in run(), l in 0.0f64..0.3, decoupled: bool, averaging: bool, debias: bool,
    ) {
        let config = NovoGrad {
            lr: 0.1, weight_decay: l, decoupled_weight_decay: decoupled, grad_averaging: averaging,
            adam_debias: debias, ..NovoGrad::default()
        };
        let (mut v, mut m) = (0.0, vec![0.0; run.0.len()]);
        check(&config, &run, |t, w, g| {
            let square = norm(g) * norm(g);
            v = if t == 1 { square } else { 0.98 * v + 0.02 * square };
            let lr = if debias { 0.1 * (1.0 - 0.98f64.powi(t)).sqrt() } else { 0.1 };
            for ((w, g), m) in w.iter_mut().zip(g).zip(&mut m) {
                let u = g / (v.sqrt() + 1e-8) + if decoupled { 0.0 } else { l * *w };
                let weight = if averaging { 0.05 } else { 1.0 };
                *m = if t == 1 { u } else { 0.95 * *m + weight * u };
                *w = *w * if decoupled { 1.0 - 0.1 * l } else { 1.0 } - lr * *m;
            }
        });
    }

    #[test]
    fn adagrad(run in run(), l in 0.0f64..0.3, decay in 0.0f64..0.5, initial in 0.0f64..1.0) {
        let config = Adagrad {
            lr: 0.1, lr_decay: decay, weight_decay: l, initial_accumulator_value: initial,
            ..Adagrad::default()
        };
        element_wise(&config, &run, |t, p, g, [s, ..]| {
            let g = g + l * p;
            *s += g * g;
            p - 0.1 / (1.0 + f64::from(t - 1) * decay) * g / ((*s + initial).sqrt() + 1e-10)
        });
    }

    #[test]
    fn rmsprop(run in run(), alpha in 0.1f64..0.99, mu in 0.0f64..0.9, centered: bool) {
        let config =
            RmsProp { lr: 0.1, alpha, momentum: mu, centered, eps: 1e-2, ..RmsProp::default() };
        element_wise(&config, &run, |_, p, g, [s, mean, b]| {
            *s = alpha * *s + (1.0 - alpha) * g * g;
            *mean = alpha * *mean + (1.0 - alpha) * g;
            let variance = if centered { (*s - *mean * *mean).max(0.0) } else { *s };
            *b = mu * *b + g / (variance.sqrt() + 1e-2);
            p - 0.1 * *b
        });
    }

    #[test]
    fn lion(run in run(), b1 in 0.0f64..0.99, b2 in 0.0f64..0.99, l in 0.0f64..0.9) {
        let config = Lion { lr: 0.1, betas: (b1, b2), weight_decay: l, ..Lion::default() };
        element_wise(&config, &run, |_, p, g, [m, ..]| {
            let u = sign(b1 * *m + (1.0 - b1) * g);
            *m = b2 * *m + (1.0 - b2) * g;
            p * (1.0 - 0.1 * l) - 0.1 * u
        });
    }

    /// With equal betas the step is the sign of the average it stores.
    #[test]
    fn lion_with_equal_betas_is_the_sign_of_an_average(run in run(), b in 0.0f64..0.99) {
        let config = Lion { lr: 0.1, betas: (b, b), ..Lion::default() };
        element_wise(&config, &run, |_, p, g, [m, ..]| {
            *m = b * *m + (1.0 - b) * g;
            p - 0.1 * sign(*m)
        });
    }

    #[test]
    fn cautious_lion(run in run()) {
        let config = Lion { lr: 0.1, cautious: true, ..Lion::default() };
        let mut m = vec![0.0; run.0.len()];
        check(&config, &run, |_, w, g| {
            let u: Vec<f64> = m.iter().zip(g).map(|(m, g)| sign(0.9 * m + 0.1 * g)).collect();
            let agree = u.iter().zip(g).filter(|(u, g)| *u * *g > 0.0).count() as f64;
            let factor = w.len() as f64 / (agree + 1.0);
            for (((w, g), u), m) in w.iter_mut().zip(g).zip(u).zip(&mut m) {
                *w -= if u * g > 0.0 { 0.1 * u * factor } else { 0.0 };
                *m = 0.99 * *m + 0.01 * g;
            }
        });
    }

    #[test]
    fn lamb(run in run(), l in 0.0f64..0.3, limit in 0.1f64..3.0) {
        let config = Lamb { lr: 0.1, weight_decay: l, max_grad_norm: limit, ..Lamb::default() };
        let (mut m, mut v) = (vec![0.0; run.0.len()], vec![0.0; run.0.len()]);
        check(&config, &run, |t, w, g| {
            let clip = (limit / (norm(g) + 1e-6)).min(1.0);
            let r: Vec<f64> = (0..w.len()).map(|i| {
                let g = g[i] * clip;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let d = (v[i] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-6;
                m[i] / (1.0 - 0.9f64.powi(t)) / d + l * w[i]
            }).collect();
            let ratio = norm(w) / norm(&r);
            w.iter_mut().zip(&r).for_each(|(w, r)| *w -= 0.1 * ratio * r);
        });
    }

    #[test]
    fn prodigy(
        run in run(), l in 0.0f64..0.1, growth in 1.0f64..3.0, bounded: bool, decoupled: bool,
        correct: bool, safe: bool,
    ) {
        let growth_rate = if bounded { growth } else { f64::INFINITY };
        // steps into one direction, else the estimate never grows; few of them, since every growth
        // multiplies the rounding errors of the sums that it came from
        let positive = run.1.iter().map(|g| g.iter().map(|g| g.abs()).collect());
        let positive: Vec<Vec<f64>> = positive.collect();
        let run = (run.0, [&positive[..]; 3].concat());
        let config = Prodigy {
            lr: 0.5, d0: 1e-3, weight_decay: l, decoupled_weight_decay: decoupled,
            use_bias_correction: correct, safeguard_warmup: safe, growth_rate,
            ..Prodigy::default()
        };
        let n = run.0.len();
        let (p0, (d0, b2)) = (run.0.clone(), (1e-3, 0.999f64));
        let (mut m, mut v, mut s) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (b3, mut d, mut d_max, mut numerator) = (b2.sqrt(), d0, d0, 0.0);
        check(&config, &run, |t, w, g| {
            let bias = (1.0 - b2.powi(t)).sqrt() / (1.0 - 0.9f64.powi(t));
            let dlr = d * 0.5 * if correct { bias } else { 1.0 };
            let (mut delta, mut denominator) = (0.0, 0.0);
            for i in 0..n {
                let g = if decoupled { g[i] } else { g[i] + l * w[i] };
                delta += d / d0 * dlr * g * (p0[i] - w[i]);
                m[i] = 0.9 * m[i] + d * 0.1 * g;
                v[i] = b2 * v[i] + d * d * (1.0 - b2) * g * g;
                s[i] = b3 * s[i] + d / d0 * if safe { d } else { dlr } * g;
                denominator += f64::abs(s[i]);
            }
            numerator = b3 * numerator + delta;
            let estimate = numerator / denominator;
            d = if d == d0 { d.max(estimate) } else { d };
            d_max = d_max.max(estimate);
            d = d_max.min(d * growth_rate);
            for i in 0..n {
                w[i] -= if decoupled { l * dlr * w[i] } else { 0.0 };
                w[i] -= dlr * m[i] / (v[i].sqrt() + d * 1e-8);
            }
        });
    }

    #[test]
    fn schedule_free(run in run(), l in 0.0f64..0.3, warmup_steps in 0u64..5, r in 0.0f64..2.0) {
        let config = ScheduleFreeAdamW {
            lr: 0.1, weight_decay: l, warmup_steps, r, ..ScheduleFreeAdamW::default()
        };
        let (mut v, mut z) = (vec![0.0; run.0.len()], run.0.clone());
        let (mut sum, mut largest) = (0.0, 0.0f64);
        check(&config, &run, |t, y, g| {
            let k = f64::from(t);
            let lr = 0.1 * if (t as u64) < warmup_steps { k / warmup_steps as f64 } else { 1.0 };
            largest = largest.max(lr);
            let weight = k.powf(r) * largest * largest;
            sum += weight;
            let c = weight / sum;
            for i in 0..y.len() {
                v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
                let u = g[i] / ((v[i] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8) + l * y[i];
                y[i] += c * (z[i] - y[i]);
                y[i] += lr * (0.9 * (1.0 - c) - 1.0) * u;
                z[i] -= lr * u;
            }
        });
    }

    #[test]
    fn classp(
        run in run(), power in 0.5f64..3.0, threshold in 0.0f64..2.0, scaling: bool, published: bool,
    ) {
        let variant = if published { ClasspVariant::AsPublished } else { ClasspVariant::Paper };
        let config = Classp {
            lr: 0.1, threshold, eps: 1e-3, power, scaling, variant, ..Classp::default()
        };
        let mut sums = vec![0.0; run.0.len()];
        check(&config, &run, |_, w, g| {
            let any = g.iter().any(|g| g * g > threshold);
            for ((w, g), sum) in w.iter_mut().zip(g).zip(&mut sums) {
                if if published { any } else { g * g > threshold } {
                    *sum += if published { g.abs() } else { g.abs().powf(power) };
                    *w -= 0.1 * g / if scaling { (1e-3 + *sum).powf(1.0 / power) } else { 1.0 };
                }
            }
        });
    }
}
