//! The geo family: sorted sets whose scores are places (see [`crate::base::geohash`]).

use std::ops::Bound;

use super::sorted_sets::zadd;
use crate::base::geohash::{self, Point, Shape};
use crate::base::num::parse_f64;
use crate::command::ctx::{Collections, Ctx, DONE};
use crate::command::spec::{Begin, Command, Group::Geo, KeySpec, Keyword, flags::*, key, one};
use crate::command::{CommandError, Result, int, is, shown};
use crate::keyspace::{Event, event};
use crate::value::{SortedSet, Value};

/// Options of GEORADIUS in front of its targets, with the words that belong to them.
const RADIUS_OPTIONS: &[(&str, usize)] = &[("count", 1), ("store", 1), ("storedist", 1)];

/// The target behind a word from argument `from` on. Told twice, the last one counts.
const fn target(word: &'static str, shown: &'static str, from: usize) -> KeySpec {
    let keyword = Keyword { word, told_from: from as i32, from, options: RADIUS_OPTIONS };
    KeySpec { begin: Begin::EachKeyword(keyword, shown), ..one(0, key::OW | key::UPDATE) }
}

pub(super) const COMMANDS: &[Command] = &[
    Command::new("geoadd", -5, Geo, geoadd)
        .complexity("O(log(N))")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::RW | key::UPDATE)])
        .history(&[("6.2.0", "`CH`, `NX` and `XX`.")])
        .doc(
            "3.2.0",
            "key [condition@6.2.0=<NX | XX>] [change@6.2.0=CH] data=(longitude latitude member) ...",
            "Adds places to a sorted set, and makes it if there is none.",
        ),
    Command::new("geodist", -4, Geo, geodist)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("3.2.0", "key member1 member2 [unit=<M | KM | FT | MI>]", "Returns the distance between two places."),
    Command::new("geohash", -2, Geo, geohash)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("3.2.0", "key [member ...]", "Returns places as geohash texts."),
    Command::new("geopos", -2, Geo, geopos)
        .complexity("O(1)")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .doc("3.2.0", "key [member ...]", "Returns longitude and latitude of places."),
    Command::new("geosearch", -7, Geo, geosearch)
        .complexity("O(N+log(M))")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("7.0.0", "Upper case units.")])
        .doc(
            "6.2.0",
            "key from=<FROMMEMBER member | FROMLONLAT fromlonlat=(longitude latitude)> \
             by=<circle=(BYRADIUS radius unit=<M | KM | FT | MI>) | box=(BYBOX width:double height:double unit=<M | KM | FT | MI>)> \
             [order=<ASC | DESC>] [count-block=(COUNT count [ANY])] [WITHCOORD] [WITHDIST] [WITHHASH]",
            "Finds the places in a circle or a box.",
        ),
    Command::new("geosearchstore", -8, Geo, geosearchstore)
        .complexity("O(N+log(M))")
        .flags(WRITE | DENYOOM)
        .keys(&[one(1, key::OW | key::UPDATE), one(2, key::RO | key::ACCESS)])
        .history(&[("7.0.0", "Upper case units.")])
        .doc(
            "6.2.0",
            "destination source from=<FROMMEMBER member | FROMLONLAT fromlonlat=(longitude latitude)> \
             by=<circle=(BYRADIUS radius unit=<M | KM | FT | MI>) | box=(BYBOX width:double height:double unit=<M | KM | FT | MI>)> \
             [order=<ASC | DESC>] [count-block=(COUNT count [ANY])] [STOREDIST]",
            "Finds the places in a circle or a box, and stores them.",
        ),
    Command::new("georadius", -6, Geo, georadius)
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument")
        .complexity("O(N+log(M))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[
            one(1, key::RO | key::ACCESS),
            target("store", "STORE", 6),
            target("storedist", "STOREDIST", 6),
        ])
        .history(&[("6.2.0", "`ANY` of a count."), ("7.0.0", "Upper case units.")])
        .doc(
            "3.2.0",
            "key longitude latitude radius unit=<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block=(COUNT count [ANY@6.2.0])] [order=<ASC | DESC>] [store=<STORE storekey~key | STOREDIST storedistkey~key>]",
            "Finds the places in a circle around a point, and stores them if asked to.",
        ),
    Command::new("georadius_ro", -6, Geo, georadius_ro)
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument")
        .complexity("O(N+log(M))")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("6.2.0", "`ANY` of a count."), ("7.0.0", "Upper case units.")])
        .doc(
            "3.2.10",
            "key longitude latitude radius unit=<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block=(COUNT count [ANY@6.2.0])] [order=<ASC | DESC>]",
            "Finds the places in a circle around a point.",
        ),
    Command::new("georadiusbymember", -5, Geo, georadiusbymember)
        .deprecated(
            "6.2.0",
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
        )
        .complexity("O(N+log(M))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[
            one(1, key::RO | key::ACCESS),
            target("store", "STORE", 5),
            target("storedist", "STOREDIST", 5),
        ])
        .history(&[("6.2.0", "`ANY` of a count."), ("7.0.0", "Upper case units.")])
        .doc(
            "3.2.0",
            "key member radius unit=<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block=(COUNT count [ANY])] [order=<ASC | DESC>] [store=<STORE storekey~key | STOREDIST storedistkey~key>]",
            "Finds the places in a circle around another, and stores them if asked to.",
        ),
    Command::new("georadiusbymember_ro", -5, Geo, georadiusbymember_ro)
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments")
        .complexity("O(N+log(M))")
        .flags(READONLY)
        .keys(&[one(1, key::RO | key::ACCESS)])
        .history(&[("6.2.0", "`ANY` of a count."), ("7.0.0", "Upper case units.")])
        .doc(
            "3.2.10",
            "key member radius unit=<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block=(COUNT count [ANY])] [order=<ASC | DESC>]",
            "Finds the places in a circle around another.",
        ),
];

/// Longitude and latitude at the head of `args`.
fn point(args: &[&[u8]]) -> Result<Point> {
    let degrees = |arg: &[u8]| parse_f64(arg).ok_or(CommandError::NotFloat);
    let point = Point { longitude: degrees(args[0])?, latitude: degrees(args[1])? };
    if point.is_valid() {
        return Ok(point);
    }
    let (x, y) = (point.longitude, point.latitude);
    Err(CommandError::owned(format!("ERR invalid longitude,latitude pair {x:.6},{y:.6}")))
}

/// The metres of a unit.
fn unit(arg: &[u8]) -> Result<f64> {
    match arg {
        w if is(w, "m") => Ok(1.0),
        w if is(w, "km") => Ok(1000.0),
        w if is(w, "ft") => Ok(0.3048),
        w if is(w, "mi") => Ok(1609.34),
        _ => Err(CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// A radius and its unit at the head of `args`: the circle, and the metres of the unit.
fn circle(args: &[&[u8]]) -> Result<(Shape, f64)> {
    let radius = parse_f64(args[0]).ok_or(CommandError::text("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(CommandError::text("ERR radius cannot be negative"));
    }
    let unit = unit(args[1])?;
    Ok((Shape::Circle { radius_m: radius * unit }, unit))
}

/// Width, height and their unit at the head of `args`.
fn rectangle(args: &[&[u8]]) -> Result<(Shape, f64)> {
    let width = parse_f64(args[0]).ok_or(CommandError::text("ERR need numeric width"))?;
    let height = parse_f64(args[1]).ok_or(CommandError::text("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(CommandError::text("ERR height or width cannot be negative"));
    }
    let unit = unit(args[2])?;
    Ok((Shape::Box { width_m: width * unit, height_m: height * unit }, unit))
}

/// A distance with four digits behind the point.
fn distance_text(distance: f64) -> String {
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    format!("{}.{:04}", scaled / 10_000, scaled % 10_000)
}

/// Writes a point with up to 17 digits behind the point.
fn reply_point(ctx: &mut Ctx<'_, '_, '_>, point: Point) {
    ctx.reply.array(2);
    for degrees in [point.longitude, point.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if ctx.reply.is_resp3() {
            ctx.reply.raw(format!(",{text}\r\n").as_bytes());
        } else {
            ctx.reply.bulk_str(text);
        }
    }
}

/// ZADD with the geohash of each place as its score (page of GEOADD).
fn geoadd(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let options = |word: &&&[u8]| is(word, "nx") || is(word, "xx") || is(word, "ch");
    let at = 2 + args[2..].iter().take_while(options).count();
    let has = |name: &str| args[2..at].iter().any(|word| is(word, name));
    let places = &args[at..];
    if !places.len().is_multiple_of(3) || has("nx") && has("xx") {
        return Err(CommandError::Syntax);
    }
    let scores = places
        .chunks_exact(3)
        .map(|place| Ok(geohash::encode(point(place)?).to_string()))
        .collect::<Result<Vec<_>>>()?;
    let mut plain: Vec<&[u8]> = vec![b"zadd"];
    plain.extend_from_slice(&args[1..at]);
    for (place, score) in places.chunks_exact(3).zip(&scores) {
        plain.extend([score.as_bytes(), place[2]]);
    }
    let before = ctx.db.effects.dirty;
    let outcome = zadd(ctx, &plain)?;
    if ctx.db.effects.dirty != before {
        // Replicas get the scores: their floating point may differ.
        ctx.record(&plain);
    }
    Ok(outcome)
}

/// The place of a member.
fn place(set: &SortedSet, member: &[u8]) -> Option<Point> {
    set.score(member).map(geohash::decode)
}

fn geodist(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let unit = match args {
        [_, _, _, _] => 1.0,
        [_, _, _, _, word] => unit(word)?,
        _ => return Err(CommandError::Syntax),
    };
    let ends = ctx.db.sorted_set(args[1])?.and_then(|set| place(set, args[2]).zip(place(set, args[3])));
    match ends {
        Some((from, to)) => ctx.reply.bulk_str(&distance_text(geohash::distance_m(from, to) / unit)),
        None => ctx.reply.null(),
    }
    DONE
}

/// The places of members.
fn places(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result<Vec<Option<Point>>> {
    let set = ctx.db.sorted_set(args[1])?;
    Ok(args[2..].iter().map(|member| set.and_then(|set| place(set, member))).collect())
}

fn geohash(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let places = places(ctx, args)?;
    ctx.reply.array(places.len());
    for place in places {
        match place {
            Some(point) => ctx.reply.bulk(&geohash::text(point)),
            None => ctx.reply.null(),
        }
    }
    DONE
}

fn geopos(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let places = places(ctx, args)?;
    ctx.reply.array(places.len());
    for place in places {
        match place {
            Some(point) => reply_point(ctx, point),
            None => ctx.reply.null_array(),
        }
    }
    DONE
}

/// What a search is for.
#[derive(Default)]
struct Search<'a> {
    centre: Option<Centre>,
    /// The shape, and the metres of the unit of all distances.
    shape: Option<(Shape, f64)>,
    target: Option<&'a [u8]>,
    /// The distance becomes the score in the target.
    store_distance: bool,
    distance: bool,
    hash: bool,
    coordinates: bool,
    count: Option<usize>,
    /// The search ends when `count` places are found, be they the nearest or not.
    any: bool,
    order: Option<Order>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Nearest,
    Farthest,
}

#[derive(Clone, Copy)]
enum Centre {
    Member(Option<Point>),
    Point(Point),
}

impl Centre {
    /// `None` for a member of a key that is missing.
    fn point(self) -> Option<Point> {
        match self {
            Centre::Member(point) => point,
            Centre::Point(point) => Some(point),
        }
    }
}

/// Which options a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEORADIUS and GEORADIUSBYMEMBER.
    Radius { stores: bool },
    /// GEOSEARCH and GEOSEARCHSTORE.
    Search { stores: bool },
}

/// The place of a member in the middle of a search. A member that is missing is an error; where the whole key is
/// missing, the search finds nothing.
fn centre_member(set: Option<&SortedSet>, member: &[u8]) -> Result<Centre> {
    let Some(set) = set else { return Ok(Centre::Member(None)) };
    let point = place(set, member).ok_or(CommandError::text("ERR could not decode requested zset member"))?;
    Ok(Centre::Member(Some(point)))
}

impl<'a> Search<'a> {
    /// Reads options into `self`.
    fn parse(&mut self, set: Option<&SortedSet>, args: &[&'a [u8]], form: Form) -> Result<()> {
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            let words = match word {
                w if is(w, "withdist") => self.flag(|s| s.distance = true),
                w if is(w, "withhash") => self.flag(|s| s.hash = true),
                w if is(w, "withcoord") => self.flag(|s| s.coordinates = true),
                w if is(w, "any") => self.flag(|s| s.any = true),
                w if is(w, "asc") => self.flag(|s| s.order = Some(Order::Nearest)),
                w if is(w, "desc") => self.flag(|s| s.order = Some(Order::Farthest)),
                w if is(w, "count") && !behind.is_empty() => {
                    let count = usize::try_from(int(behind[0])?).ok().filter(|n| *n > 0);
                    self.count = Some(count.ok_or(CommandError::text("ERR COUNT must be > 0"))?);
                    1
                }
                w => match form {
                    Form::Radius { stores } => self.parse_target(w, behind, stores)?,
                    Form::Search { stores } => self.parse_where(set, w, behind, stores)?,
                },
            };
            rest = &behind[words..];
        }
        Ok(())
    }

    fn flag(&mut self, set: impl FnOnce(&mut Self)) -> usize {
        set(self);
        0
    }

    /// STORE and STOREDIST of GEORADIUS. Returns how many words belong to the option, as below.
    fn parse_target(&mut self, word: &[u8], behind: &[&'a [u8]], stores: bool) -> Result<usize> {
        let store_distance = is(word, "storedist");
        if !stores || behind.is_empty() || !(store_distance || is(word, "store")) {
            return Err(CommandError::Syntax);
        }
        self.target = Some(behind[0]);
        self.store_distance = store_distance;
        Ok(1)
    }

    /// The options of GEOSEARCH that GEORADIUS has at fixed places.
    fn parse_where(
        &mut self,
        set: Option<&SortedSet>,
        word: &[u8],
        behind: &[&'a [u8]],
        stores: bool,
    ) -> Result<usize> {
        let (by_point, by_member) = match self.centre {
            None => (true, true),
            Some(Centre::Point(_)) => (true, false),
            Some(Centre::Member(_)) => (false, true),
        };
        let (by_circle, by_box) = match self.shape {
            None => (true, true),
            Some((Shape::Circle { .. }, _)) => (true, false),
            Some((Shape::Box { .. }, _)) => (false, true),
        };
        match word {
            w if is(w, "frommember") && !behind.is_empty() && by_member => {
                self.centre = Some(centre_member(set, behind[0])?);
                Ok(1)
            }
            w if is(w, "fromlonlat") && behind.len() >= 2 && by_point => {
                self.centre = Some(Centre::Point(point(behind)?));
                Ok(2)
            }
            w if is(w, "byradius") && behind.len() >= 2 && by_circle => {
                self.shape = Some(circle(behind)?);
                Ok(2)
            }
            w if is(w, "bybox") && behind.len() >= 3 && by_box => {
                self.shape = Some(rectangle(behind)?);
                Ok(3)
            }
            w if is(w, "storedist") && stores => {
                self.store_distance = true;
                Ok(0)
            }
            _ => Err(CommandError::Syntax),
        }
    }

    /// Refuses what does not go together. `typed` is the command's name as the client wrote it.
    fn check(&self, form: Form, typed: &[u8]) -> Result<()> {
        let search = matches!(form, Form::Search { .. });
        if self.target.is_some() && (self.distance || self.hash || self.coordinates) {
            let who = if search { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CommandError::owned(format!(
                "ERR {who} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let typed = shown(typed);
        if search && self.centre.is_none() {
            return Err(CommandError::owned(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {typed}"
            )));
        }
        if search && self.shape.is_none() {
            return Err(CommandError::owned(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {typed}"
            )));
        }
        if self.any && self.count.is_none() {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// What is found, in order.
    fn find(&self, set: &SortedSet) -> Vec<Found> {
        let (Some(centre), Some((shape, _))) = (self.centre.and_then(Centre::point), self.shape) else {
            return Vec::new();
        };
        let enough = if self.any { self.count.unwrap_or(usize::MAX) } else { usize::MAX };
        let mut found = Vec::new();
        'search: for square in shape.squares(centre) {
            let (from, to) = square.scores();
            for (member, score) in set.range(set.score_range(Bound::Included(from), Bound::Excluded(to))) {
                if found.len() >= enough {
                    break 'search;
                }
                let point = geohash::decode(score);
                if let Some(distance_m) = shape.distance_inside(centre, point) {
                    found.push(Found { member: member.to_vec(), score, point, distance_m });
                }
            }
        }
        // A count without an order is of the nearest.
        let order = self.order.or((self.count.is_some() && !self.any).then_some(Order::Nearest));
        match order {
            Some(Order::Nearest) => found.sort_by(|a, b| a.distance_m.total_cmp(&b.distance_m)),
            Some(Order::Farthest) => found.sort_by(|a, b| b.distance_m.total_cmp(&a.distance_m)),
            None => {}
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
        found
    }
}

/// A place that a search found.
struct Found {
    member: Vec<u8>,
    score: f64,
    point: Point,
    distance_m: f64,
}

fn geosearch(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let form = Form::Search { stores: false };
    let mut search = Search::default();
    search.parse(ctx.db.sorted_set(args[1])?, &args[2..], form)?;
    search.check(form, args[0])?;
    answer(ctx, args[1], &search, event::GEOSEARCHSTORE)
}

fn geosearchstore(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let form = Form::Search { stores: true };
    let mut search = Search { target: Some(args[1]), ..Search::default() };
    search.parse(ctx.db.sorted_set(args[2])?, &args[3..], form)?;
    search.check(form, args[0])?;
    answer(ctx, args[2], &search, event::GEOSEARCHSTORE)
}

fn georadius(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    radius(ctx, args, true)
}

fn georadius_ro(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    radius(ctx, args, false)
}

fn radius(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], stores: bool) -> Result {
    let form = Form::Radius { stores };
    let set = ctx.db.sorted_set(args[1])?;
    let centre = Some(Centre::Point(point(&args[2..])?));
    let mut search = Search { centre, shape: Some(circle(&args[4..])?), ..Search::default() };
    search.parse(set, &args[6..], form)?;
    search.check(form, args[0])?;
    answer(ctx, args[1], &search, event::GEORADIUSSTORE)
}

fn georadiusbymember(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    radius_by_member(ctx, args, true)
}

fn georadiusbymember_ro(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    radius_by_member(ctx, args, false)
}

fn radius_by_member(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], stores: bool) -> Result {
    let form = Form::Radius { stores };
    let set = ctx.db.sorted_set(args[1])?;
    let mut search = Search { centre: Some(centre_member(set, args[2])?), ..Search::default() };
    // Nobody looks at the circle around a member of nothing.
    if set.is_some() {
        search.shape = Some(circle(&args[3..])?);
    }
    search.parse(set, &args[5..], form)?;
    search.check(form, args[0])?;
    answer(ctx, args[1], &search, event::GEORADIUSSTORE)
}

/// Replies with what is found under `source`, or stores it.
fn answer(ctx: &mut Ctx<'_, '_, '_>, source: &[u8], search: &Search<'_>, event: Event) -> Result {
    let unit = search.shape.map_or(1.0, |(_, unit)| unit);
    // Looked up and counted before.
    let found = match ctx.db.view(source).map(crate::keyspace::EntryRef::value) {
        Some(crate::value::ValueRef::SortedSet(set)) => search.find(set),
        _ => Vec::new(),
    };
    if let Some(target) = search.target {
        return store(ctx, target, &found, search.store_distance.then_some(unit), event);
    }
    let details = [search.distance, search.hash, search.coordinates].iter().filter(|on| **on).count();
    ctx.reply.array(found.len());
    for place in found {
        if details > 0 {
            ctx.reply.array(details + 1);
        }
        ctx.reply.bulk(&place.member);
        if search.distance {
            ctx.reply.bulk_str(&distance_text(place.distance_m / unit));
        }
        if search.hash {
            ctx.reply.int(place.score as i64);
        }
        if search.coordinates {
            reply_point(ctx, place.point);
        }
    }
    DONE
}

/// Makes a sorted set of what is found; with a unit, distances in it are the scores.
fn store(
    ctx: &mut Ctx<'_, '_, '_>,
    target: &[u8],
    found: &[Found],
    unit: Option<f64>,
    event: Event,
) -> Result {
    let mut set = SortedSet::with_capacity(found.len(), ctx.limits);
    for place in found {
        set.add(&place.member, unit.map_or(place.score, |unit| place.distance_m / unit), ctx.limits);
    }
    ctx.store(target, (!found.is_empty()).then_some(Value::SortedSet(set)), event);
    ctx.db.count_elements(found.len());
    ctx.reply.int(found.len() as i64);
    DONE
}
