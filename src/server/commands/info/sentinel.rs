//! The section of a sentinel.

use crate::server::node::Node;
use crate::server::node::fields::Fields;

pub fn write(node: &Node, out: &mut Fields) {
    let Some(driver) = node.peers.sentinel.get() else { return };
    driver.read(|s| {
        let (tilt, simulated) = (s.tilt_seconds(), s.simulated());
        let primaries = s.summaries();
        out.field("sentinel_masters", primaries.len());
        out.field("sentinel_tilt", u8::from(tilt.is_some()));
        out.field("sentinel_tilt_since_seconds", tilt.map_or(-1, |s| s as i64));
        out.field("sentinel_running_scripts", s.scripts().running());
        out.field("sentinel_scripts_queue_length", s.scripts().len());
        let flags = u8::from(simulated.crash_after_election) + 2 * u8::from(simulated.crash_after_promotion);
        out.field("sentinel_simulate_failure_flags", flags);
        for (index, primary) in primaries.iter().enumerate() {
            out.field(
                format_args!("master{index}"),
                format_args!(
                    "name={},status={},address={},slaves={},sentinels={}",
                    primary.name, primary.status, primary.address, primary.replicas, primary.sentinels
                ),
            );
        }
    });
}
