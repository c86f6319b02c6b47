//! Configurations and state dicts as JSON.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use eigenstep::prelude::*;
use ndarray::array;

#[test]
fn a_configuration_file_names_only_what_differs() {
    let config: AdamW = serde_json::from_str(r#"{ "lr": 0.1, "betas": [0.8, 0.95] }"#).unwrap();
    assert_eq!(config, AdamW { lr: 0.1, betas: (0.8, 0.95), ..AdamW::default() });
    let text = serde_json::to_string(&Precision::INT4_LPMM).unwrap();
    assert_eq!(serde_json::from_str::<Precision>(&text).unwrap(), Precision::INT4_LPMM);
}

#[test]
fn a_state_dict_survives() {
    let mut w = array![1.0f32, 0.1];
    let mut opt = AdamW::default().build().unwrap();
    opt.step(&mut w, &array![0.3, -0.7]).unwrap();
    let state = opt.state_dict();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<StateDict>(&text).unwrap(), state);
}

#[test]
fn configurations_of_layers_survive_and_older_ones_load() {
    let network = NetworkFactors::kfac_pytorch();
    let text = serde_json::to_string(&network).unwrap();
    assert_eq!(serde_json::from_str::<NetworkFactors>(&text).unwrap(), network);
    // before there were several ways to invert
    let mut older = serde_json::to_value(LayerFactors::adabk()).unwrap();
    let fields = older.as_object_mut().unwrap();
    assert!(fields.remove("inverse").is_some() && fields.remove("from_first_step").is_some());
    assert_eq!(serde_json::from_value::<LayerFactors>(older).unwrap(), LayerFactors::adabk());
}
