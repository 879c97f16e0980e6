//! Meshes of ranks, and how values are divided among them.
//!
//! A mesh has named axes; rank numbers count through its coordinates, the last axis fastest. A sharding says for each
//! dimension of a value over which axes it is cut into equal parts (several: the first is the outermost), over which axes
//! ranks hold partial results that are yet to be joined, and on which coordinate of a pipeline axis the value is. Over all
//! other axes every rank holds the same. Sizes divide evenly: nothing is padded, and what does not divide is not cut.

use crate::kernel::Combine;
use crate::tensor::Tensor;
use crate::types::{TensorType, strides};
use std::collections::BTreeSet;
use std::fmt;

/// The largest number of ranks of a mesh.
pub const MAX_RANKS: usize = 1 << 20;

/// Ranks in a grid with named axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// The name, without `@`.
    pub name: String,
    /// Names and sizes, the outermost first.
    pub axes: Vec<(String, usize)>,
    /// Whether the program is that of one rank, its types those of a part; else it is yet to be divided.
    pub divided: bool,
}

/// How a value is divided. Axes are numbers of the mesh's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sharding {
    /// For each dimension, the axes that cut it, the outermost first.
    pub dims: Vec<Vec<usize>>,
    /// How the values of ranks that differ in these axes join to the value.
    pub partial: Option<Partial>,
    /// An axis and the coordinate on which alone the value is.
    pub stage: Option<(usize, usize)>,
}

/// A value that is yet to be joined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partial {
    /// How.
    pub combine: Combine,
    /// Over which axes.
    pub axes: Vec<usize>,
}

impl Mesh {
    /// A mesh of those axes, to divide a program by.
    pub fn new(axes: &[(&str, usize)]) -> Mesh {
        let axes = axes.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
        Mesh { name: "mesh".to_owned(), axes, divided: false }
    }

    /// The mesh that `dp=2,tp=4` describes, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Mesh, String> {
        let mut mesh = Mesh::new(&[]);
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, size) = item
                .split_once('=')
                .ok_or_else(|| format!("`{item}` is not of the form axis=size"))?;
            let (name, size) = (name.trim(), size.trim());
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
                return Err(format!("`{name}` is not the name of an axis"));
            }
            let size = size.parse().map_err(|_| format!("`{size}` is not the size of an axis"))?;
            mesh.axes.push((name.to_owned(), size));
        }
        mesh.check().map(|()| mesh)
    }

    /// What is wrong with the axes.
    pub fn check(&self) -> Result<(), String> {
        for (position, (name, size)) in self.axes.iter().enumerate() {
            if *size == 0 {
                return Err(format!("axis {name} has 0 ranks, but at least 1 is needed"));
            }
            if name == "_" || self.axes[..position].iter().any(|(other, _)| other == name) {
                return Err(format!("two axes are called {name}"));
            }
        }
        let product =
            self.axes.iter().try_fold(1usize, |product, (_, size)| product.checked_mul(*size));
        match product.filter(|&ranks| ranks <= MAX_RANKS) {
            Some(_) => Ok(()),
            None => Err(format!("the mesh has more than {MAX_RANKS} ranks")),
        }
    }

    /// How many ranks there are, of a mesh that was checked.
    pub fn ranks(&self) -> usize {
        self.axes.iter().map(|(_, size)| size).product()
    }

    /// The number of an axis.
    pub fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|(other, _)| other == name)
    }

    /// The size of an axis.
    pub fn size(&self, axis: usize) -> usize {
        self.axes[axis].1
    }

    /// The product of the sizes of axes.
    pub fn sizes(&self, axes: &[usize]) -> usize {
        axes.iter().map(|&axis| self.size(axis)).product()
    }

    /// The coordinate of a rank along an axis.
    pub fn coordinate(&self, rank: usize, axis: usize) -> usize {
        let inner: usize = self.axes[axis + 1..].iter().map(|(_, size)| size).product();
        rank / inner % self.size(axis)
    }

    /// The number of a rank among those that differ from it in `axes` alone, the first axis outermost.
    pub fn position(&self, rank: usize, axes: &[usize]) -> usize {
        axes.iter().fold(0, |number, &axis| number * self.size(axis) + self.coordinate(rank, axis))
    }

    /// The rank with another coordinate along an axis.
    pub fn moved(&self, rank: usize, axis: usize, coordinate: usize) -> usize {
        let inner: usize = self.axes[axis + 1..].iter().map(|(_, size)| size).product();
        rank - self.coordinate(rank, axis) * inner + coordinate * inner
    }

    /// The groups of ranks that differ in `axes` alone, each in the order of [`Mesh::position`], of the ranks that
    /// `keep` takes.
    pub fn groups(&self, axes: &[usize], keep: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let size = self.sizes(axes);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for rank in (0..self.ranks()).filter(|&rank| keep(rank) && self.position(rank, axes) == 0) {
            let member = |position: usize| {
                let mut rest = position;
                axes.iter().rev().fold(rank, |rank, &axis| {
                    let coordinate = rest % self.size(axis);
                    rest /= self.size(axis);
                    self.moved(rank, axis, coordinate)
                })
            };
            groups.push((0..size).map(member).collect());
        }
        groups
    }
}

impl Sharding {
    /// Every rank holds everything.
    pub fn whole(rank: usize) -> Sharding {
        Sharding { dims: vec![Vec::new(); rank], partial: None, stage: None }
    }

    /// Whether every rank of the value's stage holds all of it.
    pub fn is_whole(&self) -> bool {
        self.partial.is_none() && self.dims.iter().all(Vec::is_empty)
    }

    /// The axes over which ranks hold something to be joined.
    pub fn partial_axes(&self) -> &[usize] {
        self.partial.as_ref().map_or(&[], |partial| &partial.axes)
    }

    /// Whether an axis has a part in it.
    pub fn uses(&self, axis: usize) -> bool {
        self.dims.iter().flatten().chain(self.partial_axes()).any(|&other| other == axis)
            || self.stage.is_some_and(|(other, _)| other == axis)
    }

    /// The type of a rank's part of a value of that type.
    pub fn part(&self, ty: &TensorType, mesh: &Mesh) -> TensorType {
        let mut part = ty.clone();
        for (size, axes) in part.shape.iter_mut().zip(&self.dims) {
            *size /= mesh.sizes(axes);
        }
        part
    }

    /// The part of a value that a rank has.
    pub fn cut(&self, whole: &Tensor, mesh: &Mesh, rank: usize) -> Tensor {
        let mut part = whole.clone();
        for (dim, axes) in self.dims.iter().enumerate() {
            part = crate::ranks::part(&part, dim, mesh.position(rank, axes), mesh.sizes(axes));
        }
        part
    }

    /// The value of which ranks have those parts; of ranks that have the same part, the first counts.
    pub fn join(&self, parts: &[(usize, Tensor)], mesh: &Mesh) -> Option<Tensor> {
        let (_, first) = parts.first()?;
        let whole = self.whole_type(first.ty(), mesh)?;
        let width = whole.dtype.bytes();
        let steps = strides(&whole.shape);
        let mut data = vec![0u8; whole.bytes()];
        let mut seen = BTreeSet::new();
        for (rank, part) in parts {
            let place: Vec<usize> =
                self.dims.iter().map(|axes| mesh.position(*rank, axes)).collect();
            if !seen.insert(place.clone()) || part.count() == 0 {
                continue;
            }
            let shape = part.shape();
            let row = shape.last().map_or(1, |&size| size);
            let mut index = vec![0usize; shape.len().saturating_sub(1)];
            for bytes in part.bytes().chunks_exact(row * width) {
                let at =
                    |dim: usize| place[dim] * shape[dim] + index.get(dim).copied().unwrap_or(0);
                let start: usize = (0..shape.len()).map(|dim| at(dim) * steps[dim]).sum();
                data[start * width..][..bytes.len()].copy_from_slice(bytes);
                for dim in (0..index.len()).rev() {
                    index[dim] += 1;
                    if index[dim] < shape[dim] {
                        break;
                    }
                    index[dim] = 0;
                }
            }
        }
        Tensor::new(whole, bytes::Bytes::from(data))
    }

    /// The type of a value whose part has that type; `None` where it is larger than any memory.
    pub fn whole_type(&self, part: &TensorType, mesh: &Mesh) -> Option<TensorType> {
        let mut whole = part.clone();
        for (size, axes) in whole.shape.iter_mut().zip(&self.dims) {
            *size = size.checked_mul(mesh.sizes(axes))?;
        }
        whole.checked_count().map(|_| whole)
    }

    /// The sharding that `{dp, _, (pp, tp), sum(ep), pp = 1}` describes, or what is wrong with it.
    pub fn parse(text: &str, mesh: &Mesh) -> Result<Sharding, String> {
        let inner = text.trim().trim_start_matches('{').trim_end_matches('}').trim();
        let mut items = Vec::new();
        let mut depth = 0usize;
        let mut start = 0;
        for (place, c) in inner.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    items.push(inner[start..place].trim());
                    start = place + 1;
                }
                _ => {}
            }
        }
        if !inner[start..].trim().is_empty() {
            items.push(inner[start..].trim());
        }
        let words = |list: &str| {
            list.trim_end_matches(')').split(',').map(|word| word.trim().to_owned()).collect()
        };
        let items: Vec<Item> = items
            .into_iter()
            .map(|item| match (item.split_once('='), item.split_once('(')) {
                (Some((axis, at)), _) => match at.trim().parse() {
                    Ok(at) => Item::Stage(axis.trim().to_owned(), at),
                    Err(_) => Item::Axes(vec![item.to_owned()]),
                },
                (None, Some(("", list))) => Item::Axes(words(list)),
                (None, Some((combine, list))) => Item::Partial(combine.to_owned(), words(list)),
                (None, None) if item == "_" => Item::Axes(Vec::new()),
                (None, None) => Item::Axes(vec![item.to_owned()]),
            })
            .collect();
        Sharding::from_items(&items, mesh)
    }

    /// The sharding of those items.
    pub fn from_items(items: &[Item], mesh: &Mesh) -> Result<Sharding, String> {
        let axis = |name: &String| {
            mesh.axis(name).ok_or_else(|| format!("mesh @{} has no axis {name}", mesh.name))
        };
        let axes =
            |names: &[String]| names.iter().map(axis).collect::<Result<Vec<usize>, String>>();
        let mut sharding = Sharding::default();
        for item in items {
            match item {
                Item::Axes(names) => {
                    if sharding.partial.is_some() || sharding.stage.is_some() {
                        return Err("dimensions come before partial results and stages".to_owned());
                    }
                    sharding.dims.push(axes(names)?);
                }
                Item::Partial(name, names) => {
                    let combine = Combine::from_name(name)
                        .ok_or_else(|| format!("partial results are not joined by {name}"))?;
                    if sharding.partial.is_some() {
                        return Err("partial results are joined in one way".to_owned());
                    }
                    let partial = Partial { combine, axes: axes(names)? };
                    sharding.partial = Some(partial);
                }
                Item::Stage(name, at) => {
                    if sharding.stage.is_some() {
                        return Err("a value is on one stage".to_owned());
                    }
                    sharding.stage = Some((axis(name)?, *at));
                }
            }
        }
        Ok(sharding)
    }

    /// What is wrong with it for a value of that type; sizes count where the value is yet to be divided.
    pub fn check(&self, ty: &TensorType, mesh: &Mesh) -> Result<(), String> {
        if self.dims.len() != ty.rank() {
            let (found, wanted) = (self.dims.len(), ty.rank());
            return Err(format!("{found} dimensions are sharded, but {ty} has {wanted}"));
        }
        let stage = self.stage.iter().map(|(axis, _)| axis);
        let mut seen = vec![false; mesh.axes.len()];
        for &axis in self.dims.iter().flatten().chain(self.partial_axes()).chain(stage) {
            let Some(seen) = seen.get_mut(axis) else {
                return Err(format!("the mesh has no axis number {axis}"));
            };
            if std::mem::replace(seen, true) {
                return Err(format!("axis {} is used twice", mesh.axes[axis].0));
            }
        }
        if let Some((axis, at)) = self.stage
            && at >= mesh.size(axis)
        {
            let (name, size) = &mesh.axes[axis];
            return Err(format!("axis {name} has {size} coordinates, and no coordinate {at}"));
        }
        if let Some(partial) = &self.partial {
            let combine = partial.combine;
            if combine.function().result(&[ty.dtype, ty.dtype]).is_err() {
                return Err(format!(
                    "{} does not join elements of type {}",
                    combine.name(),
                    ty.dtype
                ));
            }
        }
        for (dim, axes) in self.dims.iter().enumerate() {
            let (size, parts) = (ty.shape[dim], mesh.sizes(axes));
            if !mesh.divided && !size.is_multiple_of(parts) {
                return Err(format!(
                    "dimension {dim} of size {size} does not divide into {parts} parts"
                ));
            }
        }
        Ok(())
    }

    /// How it is written.
    pub fn text(&self, mesh: &Mesh) -> String {
        let name = |axis: &usize| mesh.axes.get(*axis).map_or("?", |(name, _)| name.as_str());
        let list = |axes: &[usize]| axes.iter().map(name).collect::<Vec<_>>().join(", ");
        let mut items: Vec<String> = self
            .dims
            .iter()
            .map(|axes| match axes.as_slice() {
                [] => "_".to_owned(),
                [axis] => name(axis).to_owned(),
                several => format!("({})", list(several)),
            })
            .collect();
        if let Some(partial) = &self.partial {
            items.push(format!("{}({})", partial.combine.name(), list(&partial.axes)));
        }
        if let Some((axis, at)) = &self.stage {
            items.push(format!("{} = {at}", name(axis)));
        }
        format!("{{{}}}", items.join(", "))
    }
}

/// A part of a sharding's text, names not looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A dimension, cut by these axes: `_`, `dp`, `(dp, tp)`.
    Axes(Vec<String>),
    /// `sum(tp)`
    Partial(String, Vec<String>),
    /// `pp = 1`
    Stage(String, usize),
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.divided { "ranks" } else { "mesh" };
        write!(f, "{word} @{} [", crate::text::lexer::Name(&self.name))?;
        for (position, (name, size)) in self.axes.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{name} = {size}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_through_the_mesh_with_the_last_axis_fastest() {
        let mesh = Mesh::parse("dp=2, tp=4").expect("it is a mesh");
        assert_eq!(mesh.ranks(), 8);
        assert_eq!((mesh.coordinate(6, 0), mesh.coordinate(6, 1)), (1, 2));
        assert_eq!(mesh.moved(6, 0, 0), 2);
        assert_eq!(mesh.groups(&[1], |_| true), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(mesh.groups(&[0], |rank| rank % 4 < 2), [[0, 4], [1, 5]]);
        assert_eq!(mesh.groups(&[1, 0], |_| true), [[0, 4, 1, 5, 2, 6, 3, 7]]);
        assert_eq!(mesh.position(5, &[1, 0]), 3);
    }

    #[test]
    fn shardings_are_read_as_they_are_written() {
        let mesh = Mesh::new(&[("dp", 2), ("tp", 4), ("pp", 2)]);
        for text in ["{dp, _}", "{}", "{(dp, tp), _, sum(pp)}", "{_, dp, max(tp), pp = 1}"] {
            let sharding = Sharding::parse(text, &mesh).expect("it is a sharding");
            assert_eq!(sharding.text(&mesh), text);
        }
        assert_eq!(Sharding::parse("{ep}", &mesh), Err("mesh @mesh has no axis ep".to_owned()));
        assert!(Mesh::parse("dp=2,dp=2").is_err());
        assert!(Mesh::parse("dp=0").is_err());
        assert!(Mesh::parse("a=1000000,b=1000000").is_err());
    }
}
