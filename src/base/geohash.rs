//! Geohashes: a place on earth as one number, whose digits in base 4 say into which quarter of a quarter it
//! falls. With 26 of them the 52 bits are a double without loss, so that places can be scores.
//!
//! The range of the latitude is that of Web Mercator (EPSG:3857), which makes the squares nearly square.

/// Degrees east or west of Greenwich that a point may have.
pub const LONGITUDE_MAX: f64 = 180.0;
/// Degrees north or south of the equator that a point may have: where Web Mercator ends.
pub const LATITUDE_MAX: f64 = 85.051_128_78;

/// Digits of a stored place.
pub const STEPS: u32 = 26;

/// The radius of a sphere of the earth's volume, in metres.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Half the side of the Mercator square, in metres.
const MERCATOR_MAX_M: f64 = 20_037_726.37;

/// A point in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Degrees, east positive.
    pub longitude: f64,
    /// Degrees, north positive.
    pub latitude: f64,
}

impl Point {
    /// Whether it lies within the range that geohashes cover.
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= LONGITUDE_MAX && self.latitude.abs() <= LATITUDE_MAX
    }
}

/// A square: the first `steps` digits of every place inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Square {
    bits: u64,
    steps: u32,
}

/// The borders of a square or of a search, in degrees.
#[derive(Clone, Copy, Debug)]
struct Borders {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

/// The number of a point, for a score.
pub fn encode(point: Point) -> u64 {
    Square::around(point, STEPS).bits
}

/// The middle of the smallest square that a score stands for.
pub fn decode(score: f64) -> Point {
    let b = Square { bits: score as u64, steps: STEPS }.borders();
    Point {
        longitude: f64::midpoint(b.west, b.east).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
        latitude: f64::midpoint(b.south, b.north).clamp(-LATITUDE_MAX, LATITUDE_MAX),
    }
}

/// The text of eleven characters that other systems know: base 32, with the latitude up to the poles.
pub fn text(point: Point) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let bits = interleave(offset(point.latitude, 90.0, STEPS), offset(point.longitude, 180.0, STEPS));
    // The last character would need three bits more than there are.
    std::array::from_fn(|i| ALPHABET[if i == 10 { 0 } else { (bits >> (47 - 5 * i)) as usize & 31 }])
}

/// Where a coordinate lies in `-max..max`, in units of the 2^`steps`-th part.
fn offset(degrees: f64, max: f64, steps: u32) -> u32 {
    ((degrees + max) / (max + max) * (1_u64 << steps) as f64) as u32
}

/// Spreads the bits of a number over the even bits.
fn spread(n: u32) -> u64 {
    let mut x = u64::from(n);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        x = (x | x << shift) & mask;
    }
    x
}

/// Gathers the even bits.
fn gather(bits: u64) -> u32 {
    let mut x = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        x = (x | x >> shift) & mask;
    }
    x as u32
}

fn interleave(latitude: u32, longitude: u32) -> u64 {
    spread(latitude) | spread(longitude) << 1
}

impl Square {
    /// The square of this size that holds the point.
    fn around(point: Point, steps: u32) -> Self {
        let latitude = offset(point.latitude, LATITUDE_MAX, steps);
        Self { bits: interleave(latitude, offset(point.longitude, LONGITUDE_MAX, steps)), steps }
    }

    fn borders(self) -> Borders {
        let parts = (1_u64 << self.steps) as f64;
        let at = |n: u64, max: f64| n as f64 / parts * (max + max) - max;
        let (latitude, longitude) = (u64::from(gather(self.bits)), u64::from(gather(self.bits >> 1)));
        Borders {
            west: at(longitude, LONGITUDE_MAX),
            south: at(latitude, LATITUDE_MAX),
            east: at(longitude + 1, LONGITUDE_MAX),
            north: at(latitude + 1, LATITUDE_MAX),
        }
    }

    /// The square of the same size so many squares east and north of it; around the world.
    fn neighbour(self, east: i32, north: i32) -> Self {
        let mask = (1_u64 << self.steps) as u32 - 1;
        // Longitude 180 has a number one beyond the last square, and keeps it unless a step is taken: that goes
        // around the world.
        let moved = |n: u32, by: i32| if by == 0 { n } else { n.wrapping_add_signed(by) & mask };
        let latitude = moved(gather(self.bits), north);
        Self { bits: interleave(latitude, moved(gather(self.bits >> 1), east)), ..self }
    }

    /// The scores inside: from the first to before the second.
    pub fn scores(self) -> (f64, f64) {
        let unit = 2 * (STEPS - self.steps);
        ((self.bits << unit) as f64, ((self.bits + 1) << unit) as f64)
    }
}

/// Metres between two points on the sphere.
pub fn distance_m(a: Point, b: Point) -> f64 {
    let v = ((b.longitude.to_radians() - a.longitude.to_radians()) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance_m(a.latitude, b.latitude);
    }
    let (from, to) = (a.latitude.to_radians(), b.latitude.to_radians());
    let u = ((to - from) / 2.0).sin();
    2.0 * EARTH_RADIUS_M * (u * u + from.cos() * to.cos() * v * v).sqrt().asin()
}

fn latitude_distance_m(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (b.to_radians() - a.to_radians()).abs()
}

/// What is searched around a point, in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All points up to so far from the centre.
    Circle {
        /// Metres.
        radius_m: f64,
    },
    /// All points within a rectangle with the centre in its middle.
    Box {
        /// Metres from the western to the eastern side.
        width_m: f64,
        /// Metres from the southern to the northern side.
        height_m: f64,
    },
}

impl Shape {
    /// How far a point is from the centre, if it is inside.
    pub fn distance_inside(self, centre: Point, point: Point) -> Option<f64> {
        match self {
            Shape::Circle { radius_m } => Some(distance_m(centre, point)).filter(|d| *d <= radius_m),
            Shape::Box { width_m, height_m } => {
                let beside = Point { longitude: centre.longitude, ..point };
                let inside = latitude_distance_m(point.latitude, centre.latitude) <= height_m / 2.0
                    && distance_m(point, beside) <= width_m / 2.0;
                inside.then(|| distance_m(centre, point))
            }
        }
    }

    fn reach(self) -> (f64, f64, f64) {
        match self {
            Shape::Circle { radius_m } => (radius_m, radius_m, radius_m),
            Shape::Box { width_m, height_m } => {
                let (x, y) = (width_m / 2.0, height_m / 2.0);
                (x, y, (x * x + y * y).sqrt())
            }
        }
    }

    fn borders(self, centre: Point) -> Borders {
        let (x, y, _) = self.reach();
        let latitude = (y / EARTH_RADIUS_M).to_degrees();
        // A degree of longitude is shortest at the border that is nearer to a pole.
        let towards_pole = if centre.latitude < 0.0 { -latitude } else { latitude };
        let longitude =
            (x / EARTH_RADIUS_M / (centre.latitude + towards_pole).to_radians().cos()).to_degrees();
        Borders {
            west: centre.longitude - longitude,
            south: centre.latitude - latitude,
            east: centre.longitude + longitude,
            north: centre.latitude + latitude,
        }
    }

    /// The squares that hold every point inside: that of the centre, then those of its neighbours that are
    /// needed, in the order in which a search visits them.
    pub fn squares(self, centre: Point) -> Vec<Square> {
        let (_, _, radius_m) = self.reach();
        let wanted = self.borders(centre);
        let mut steps = steps_for(radius_m, centre.latitude);
        let mut middle = Square::around(centre, steps);
        let too_near = |middle: Square| {
            middle.neighbour(0, 1).borders().north < wanted.north
                || middle.neighbour(0, -1).borders().south > wanted.south
                || middle.neighbour(1, 0).borders().east < wanted.east
                || middle.neighbour(-1, 0).borders().west > wanted.west
        };
        if steps > 1 && too_near(middle) {
            steps -= 1;
            middle = Square::around(centre, steps);
        }
        let own = middle.borders();
        let small = steps >= 2;
        let needed = |east: i32, north: i32| {
            !(small
                && (north < 0 && own.south < wanted.south
                    || north > 0 && own.north > wanted.north
                    || east < 0 && own.west < wanted.west
                    || east > 0 && own.east > wanted.east))
        };
        let mut squares = vec![middle];
        for (east, north) in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
            let square = middle.neighbour(east, north);
            // With squares of half the world neighbours on both sides are the same.
            if needed(east, north) && squares.last() != Some(&square) {
                squares.push(square);
            }
        }
        squares
    }
}

/// The size of squares of which nine cover a search.
fn steps_for(radius_m: f64, latitude: f64) -> u32 {
    if radius_m == 0.0 {
        return STEPS;
    }
    let mut steps = 1;
    let mut reach = radius_m;
    while reach < MERCATOR_MAX_M {
        reach *= 2.0;
        steps += 1;
    }
    // Two less to be on the safe side; squares are narrower near the poles.
    steps -= 2;
    if latitude.abs() > 66.0 {
        steps -= 1;
    }
    if latitude.abs() > 80.0 {
        steps -= 1;
    }
    steps.clamp(1, STEPS as i32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const PALERMO: Point = Point { longitude: 13.361389, latitude: 38.115556 };

    #[test]
    fn a_place_is_the_number_and_the_text_that_redis_shows() {
        assert_eq!(encode(PALERMO), 3_479_099_956_230_698);
        assert_eq!(&text(decode(encode(PALERMO) as f64)), b"sqc8b49rny0");
        let catania = Point { longitude: 15.087269, latitude: 37.502669 };
        assert_eq!(
            format!("{:.4}", distance_m(decode(3_479_099_956_230_698.0), decode(encode(catania) as f64))),
            "166274.1516"
        );
    }

    /// A search of squares finds what a look at every place finds.
    #[test]
    fn squares_cover_the_shape() {
        let mut rng = Rng::new(5);
        let mut degrees = |max: f64| (rng.below(2_000_001) as f64 / 1e6 - 1.0) * max;
        for round in 0..400 {
            let centre = Point { longitude: degrees(170.0), latitude: degrees(70.0) };
            let size = 10_f64.powi(round % 6 + 1);
            let shape = if round % 2 == 0 {
                Shape::Circle { radius_m: size }
            } else {
                Shape::Box { width_m: size, height_m: size * 2.0 }
            };
            let squares = shape.squares(centre);
            for _ in 0..100 {
                let spread = size / 60_000.0;
                let near = Point {
                    longitude: centre.longitude + degrees(spread),
                    latitude: centre.latitude + degrees(spread),
                };
                if !near.is_valid() {
                    continue;
                }
                let score = encode(near) as f64;
                let found = squares.iter().any(|s| (s.scores().0..s.scores().1).contains(&score));
                assert!(
                    found || shape.distance_inside(centre, decode(score)).is_none(),
                    "{centre:?} {near:?}"
                );
            }
        }
    }
}
