//! Laws of rules whose steps are scaled tensor by tensor, of CAME, and of Adagrad's relatives with other roots.

use crate::cases::cases;
use crate::first_order::{Opt, close, minus, norm, number, path, run, slot, step};
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use proptest::prelude::*;

fn scaled(vectors: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    vectors.iter().map(|x| x.iter().map(|x| x * factor).collect()).collect()
}

fn larc() -> Lars {
    Lars { lr: 0.1, ..Lars::larc() }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Vectors have no trust ratio unless they are to have one.
    #[test]
    fn lars_leaves_vectors_to_sgd((w, grads) in run(), momentum in 0.0f64..0.99, nesterov: bool) {
        let nesterov = nesterov && momentum > 0.0;
        let lars = Lars { lr: 0.1, momentum, nesterov, weight_decay: 0.3, ..Lars::default() };
        let sgd = Sgd { lr: 0.1, momentum, nesterov, ..Sgd::default() };
        prop_assert_eq!(path(&lars, &w, &grads), path(&sgd, &w, &grads));
    }

    #[test]
    fn lars_steps_are_a_share_of_the_weights((w, grads) in run(), share in 0.001f64..0.5) {
        let lars = Lars {
            lr: 1.0, momentum: 0.0, trust_coefficient: share, adapt_vectors: true, ..Lars::default()
        };
        let mut before = w.clone();
        for after in path(&lars, &w, &grads) {
            let (length, expected) = (norm(&minus(&after, &before)), share * norm(&before));
            prop_assert!((length - expected).abs() <= 1e-12 * expected);
            before = after;
        }
    }

    /// Powers of two scale without rounding, so the laws are exact.
    #[test]
    fn layerwise_steps_do_not_depend_on_the_scale((w, grads) in run(), k in -20i32..20) {
        let factor = 2f64.powi(k);
        let large = scaled(&grads, factor);
        let lars = Lars { lr: 0.5, adapt_vectors: true, ..Lars::default() };
        prop_assert_eq!(path(&lars, &w, &grads), path(&lars, &w, &large));
        let fromage = Fromage { lr: 0.1, ..Fromage::default() };
        prop_assert_eq!(path(&fromage, &w, &grads), path(&fromage, &w, &large));
        let big: Vec<f64> = w.iter().map(|w| w * factor).collect();
        prop_assert_eq!(path(&fromage, &big, &grads), scaled(&path(&fromage, &w, &grads), factor));
    }

    /// LARC without a limit from the weights is gradient descent, and never takes longer steps.
    #[test]
    fn larc_is_bounded_by_sgd((w, grads) in run(), weight_decay in 0.0f64..0.5) {
        let free = Lars { trust_coefficient: 1e9, eps: 0.0, weight_decay, ..larc() };
        let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay, ..Sgd::default() };
        close(&path(&free, &w, &grads).concat(), &path(&sgd, &w, &grads).concat(), 1e-12);
        let bounded = Lars { momentum: 0.0, weight_decay, ..larc() };
        let mut before = w.clone();
        for (g, after) in grads.iter().zip(path(&bounded, &w, &grads)) {
            let gradient: Vec<f64> = g.iter().zip(&before).map(|(g, w)| g + weight_decay * w).collect();
            prop_assert!(norm(&minus(&after, &before)) <= 0.1 * norm(&gradient) * (1.0 + 1e-12));
            before = after;
        }
    }

    /// Without its trust ratio LAMB is Adam.
    #[test]
    fn lamb_without_a_ratio_is_adam((w, grads) in run(), weight_decay in 0.0f64..0.5) {
        let lamb = Lamb {
            lr: 0.1, adam: true, weight_decay, decoupled_weight_decay: true, ..Lamb::default()
        };
        let adamw = AdamW { lr: 0.1, eps: 1e-6, weight_decay, ..AdamW::default() };
        prop_assert_eq!(path(&lamb, &w, &grads), path(&adamw, &w, &grads));
        // a bound below every ratio is a factor on the learning rate
        let bounded = Lamb { max_trust_ratio: 1e-6, lr: 0.1, ..Lamb::default() };
        let adam = Adam { lr: 1e-7, eps: 1e-6, ..Adam::default() };
        close(&path(&bounded, &w, &grads).concat(), &path(&adam, &w, &grads).concat(), 1e-14);
    }

    #[test]
    fn lamb_counts_weights_up_to_a_norm((w, grads) in run(), largest in 0.01f64..3.0, paper: bool) {
        let form = if paper { LambForm::Paper } else { LambForm::StepCorrected };
        let config = Lamb { lr: 0.1, form, bias_correction: false, eps: 0.0, max_weight_norm: largest,
            ..Lamb::default() };
        let mut before = w.clone();
        for after in path(&config, &w, &grads) {
            let (length, expected) = (norm(&minus(&after, &before)), 0.1 * norm(&before).min(largest));
            prop_assert!((length - expected).abs() <= 1e-11 * expected.max(1e-3), "{} {}", length, expected);
            before = after;
        }
    }

    /// The two forms differ by the correction of the second moment, which a long average of a constant gradient does
    /// not need, and by where `ε` stands.
    #[test]
    fn the_forms_of_lamb_meet_without_correction((w, grads) in run(), decoupled: bool) {
        let paper = Lamb {
            lr: 0.1, eps: 0.0, bias_correction: false, weight_decay: 0.2,
            decoupled_weight_decay: decoupled, ..Lamb::default()
        };
        let other = Lamb { form: LambForm::StepCorrected, ..paper.clone() };
        close(&path(&paper, &w, &grads).concat(), &path(&other, &w, &grads).concat(), 1e-12);
        // sums of gradients are averages of gradients, longer
        let sums = Lamb { grad_averaging: false, weight_decay: 0.0, ..paper.clone() };
        let averages = Lamb { weight_decay: 0.0, ..paper };
        close(&path(&sums, &w, &grads).concat(), &path(&averages, &w, &grads).concat(), 1e-11);
    }

    /// A gradient at a right angle to the weights turns them, and leaves their norm.
    #[test]
    fn fromage_keeps_the_norm((w, grads) in run(), lr in 0.01f64..1.0) {
        prop_assume!(w.len() > 1);
        let mut opt: Opt<Fromage> = Fromage { lr, ..Fromage::default() }.build().unwrap();
        let (mut w, length) = (w.clone(), norm(&w));
        for g in &grads {
            let along = g.iter().zip(&w).map(|(g, w)| g * w).sum::<f64>() / norm(&w).powi(2);
            let across: Vec<f64> = g.iter().zip(&w).map(|(g, w)| g - along * w).collect();
            prop_assume!(norm(&across) > 1e-6);
            step(&mut opt, &mut w, &across);
            prop_assert!((norm(&w) - length).abs() <= 1e-9 * length);
        }
    }

    #[test]
    fn fromage_has_a_bound((w, grads) in run(), bound in 0.2f64..2.0) {
        let free = Fromage { lr: 0.5, ..Fromage::default() };
        let config = Fromage { p_bound: Some(bound), ..free.clone() };
        let largest = bound * norm(&w);
        for after in path(&config, &w, &grads) {
            prop_assert!(norm(&after) <= largest * (1.0 + 1e-12));
        }
        let far = Fromage { p_bound: Some(1e9), ..free.clone() };
        prop_assert_eq!(path(&far, &w, &grads), path(&free, &w, &grads));
    }

    /// With a constant rate it does not matter where it stands.
    #[test]
    fn tensorflows_momentum_holds_steps((w, grads) in run(), centered: bool) {
        let inside = RmsPropTf { momentum: 0.9, centered, ..RmsPropTf::default() };
        let outside = RmsPropTf { lr_in_momentum: false, ..inside.clone() };
        close(&path(&inside, &w, &grads).concat(), &path(&outside, &w, &grads).concat(), 1e-12);
        // a rate of 0 stops new gradients alone
        let mut opt: Opt<RmsPropTf> = inside.build().unwrap();
        let mut w = w.clone();
        step(&mut opt, &mut w, &grads[0]);
        let (before, buffer) = (w.clone(), slot(&opt, "momentum_buffer"));
        opt.set_lr(0, 0.0).unwrap();
        step(&mut opt, &mut w, &grads[0]);
        let expected: Vec<f64> = before.iter().zip(&buffer).map(|(w, b)| w - 0.9 * b).collect();
        close(&w, &expected, 1e-14);
    }

    #[test]
    fn tensorflows_mean_squares_begin_at_one(g in number(), alpha in 0.01f64..0.999, n in 1usize..40) {
        let config = RmsPropTf { alpha, eps: 0.0, ..RmsPropTf::default() };
        let mut opt: Opt<RmsPropTf> = config.build().unwrap();
        let mut w = [0.0];
        let expected = (1..=n as i32).fold(0.0, |p, t| {
            step(&mut opt, &mut w, &[g]);
            p - 0.01 * g / (alpha.powi(t) + (1.0 - alpha.powi(t)) * g * g).sqrt()
        });
        close(&w, &[expected], 1e-11);
    }

    #[test]
    fn ftrl_without_penalties_is_adagrad((w, grads) in run(), lr in 0.01f64..1.0) {
        let ftrl = Ftrl { lr, ..Ftrl::default() };
        let adagrad = Adagrad { lr, eps: 0.0, ..Adagrad::default() };
        close(&path(&ftrl, &w, &grads).concat(), &path(&adagrad, &w, &grads).concat(), 1e-10);
        let still = Ftrl { lr: 0.0, ..ftrl };
        prop_assert_eq!(path(&still, &w, &grads), vec![w.clone(); grads.len()]);
    }

    /// A penalty that outweighs all gradients gives zeros, and a smaller one those that it outweighs.
    #[test]
    fn ftrl_gives_zeros((w, grads) in run(), lambda_1 in 0.0f64..3.0) {
        let config = Ftrl { lr: 0.5, lambda_1, beta: 1.0, lambda_2: 0.1, ..Ftrl::default() };
        let mut opt: Opt<Ftrl> = config.build().unwrap();
        let mut w = w.clone();
        for g in &grads {
            step(&mut opt, &mut w, g);
            for (w, z) in w.iter().zip(slot(&opt, "z")) {
                prop_assert_eq!(*w == 0.0, z.abs() <= lambda_1);
                prop_assert!(w * z <= 0.0);
            }
        }
    }

    /// Where residuals say nothing (`ε₂` outweighs them) a matrix of one row goes the way of a vector, times what the
    /// average of `ε₂` is by then.
    #[test]
    fn came_without_confidence_treats_matrices_as_vectors((w, grads) in run()) {
        let vector = Came { lr: 0.1, betas: (0.8, 0.9, 0.7), ..Came::default() };
        let row = Came { lr: 1e9, eps: (1e-30, 1e20), ..vector.clone() };
        let (mut row, mut a) = (row.build().unwrap(), w.clone());
        let mut before = w.clone();
        for (t, (g, after)) in (1..).zip(grads.iter().zip(path(&vector, &w, &grads))) {
            let (shape, old) = ([1, w.len()], a.clone());
            row.step(&mut FlatMut::new(&mut a, &shape), &Flat::new(g, &shape)).unwrap();
            let average = (1.0 - 0.7f64.powi(t)).sqrt();
            let found: Vec<f64> = minus(&a, &old).iter().map(|d| d * average).collect();
            close(&found, &minus(&after, &before), 1e-11);
            before = after;
        }
    }

    /// Powers of two scale without rounding, so the law is exact; residuals are those of normalised gradients.
    #[test]
    fn came_does_not_depend_on_the_scale((w, grads) in run(), k in -20i32..20, rows in 1usize..4) {
        let config = Came { lr: 0.01, eps: (0.0, 1e-16), ..Came::default() };
        let after = |factor: f64| {
            let shape = [rows, w.len()];
            let mut opt = config.clone().build().unwrap();
            let mut p = w.repeat(rows);
            for g in &grads {
                let g: Vec<f64> = g.repeat(rows).iter().zip(1..).map(|(g, i)| g * f64::from(i) * factor).collect();
                opt.step(&mut FlatMut::new(&mut p, &shape), &Flat::new(&g, &shape)).unwrap();
            }
            p
        };
        prop_assert_eq!(after(1.0), after(2f64.powi(k)));
    }
}
