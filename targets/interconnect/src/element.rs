//! Element types, as far as fabrics care: how wide they are, and whether a switch can add them.

/// An element type of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// As the compiler names it.
    pub name: &'static str,
    /// Bits of one element.
    pub bits: u32,
    /// Whether switches that reduce can add it.
    pub in_switch: bool,
}

impl Element {
    /// Every element type.
    pub const ALL: &'static [Element] = &[
        Element { name: "f64", bits: 64, in_switch: true },
        Element { name: "f32", bits: 32, in_switch: true },
        Element { name: "f16", bits: 16, in_switch: true },
        Element { name: "bf16", bits: 16, in_switch: true },
        Element { name: "f8e4m3", bits: 8, in_switch: false },
        Element { name: "f8e5m2", bits: 8, in_switch: false },
        Element { name: "i64", bits: 64, in_switch: true },
        Element { name: "u64", bits: 64, in_switch: true },
        Element { name: "i32", bits: 32, in_switch: true },
        Element { name: "u32", bits: 32, in_switch: true },
        Element { name: "i16", bits: 16, in_switch: false },
        Element { name: "u16", bits: 16, in_switch: false },
        Element { name: "i8", bits: 8, in_switch: false },
        Element { name: "u8", bits: 8, in_switch: false },
    ];

    /// The type of that name.
    pub fn named(name: &str) -> Option<Element> {
        Element::ALL.iter().copied().find(|element| element.name == name)
    }

    /// bf16, what models are trained in.
    pub fn bf16() -> Element {
        Element { name: "bf16", bits: 16, in_switch: true }
    }
}
