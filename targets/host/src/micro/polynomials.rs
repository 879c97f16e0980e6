//! Coefficients of the transcendental functions of f32, lowest power first: minimax fits of our own.

/// ln 2 in two parts, the first exact in few bits.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// What [`LN2_HIGH`] lacks.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// (e^r − 1 − r) / r² for |r| ≤ ln 2 / 2.
pub(crate) const EXP: [f32; 5] =
    [0.499_999_93, 0.166_665_2, 0.041_668_394, 0.008_368_78, 0.001_381_446_7];
/// (tanh x − x) / x³ as a polynomial in x², for |x| < 0.625.
pub(crate) const TANH: [f32; 5] =
    [-0.333_332_84, 0.133_314_91, -0.053_743_5, 0.020_650_588, -0.005_717_045_5];
/// (erf x − x) / x as a polynomial in x², for |x| < 1.
pub(crate) const ERF: [f32; 7] = [
    0.128_379_17,
    -0.376_126_27,
    0.112_836,
    -0.026_854_444,
    0.005_189_535,
    -0.000_802_084_2,
    7.889_123e-5,
];
/// ln(1 − erf x) for 1 ≤ x ≤ 4.
pub(crate) const LOG_ERFC: [f32; 8] = [
    0.000_183_444_84,
    -1.129_556_8,
    -0.633_262_6,
    -0.108_372_48,
    0.025_178_97,
    -0.004_193_612_2,
    0.000_439_106_57,
    -2.149_612_8e-5,
];
