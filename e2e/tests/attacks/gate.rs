//! The statement gate closes what no grant in the database can.

use insula_data::gate;
use insula_e2e::attack::{ATTACKS, End};

#[test]
fn the_gate_closes_what_the_database_cannot() {
    for (name, sql, end) in ATTACKS.iter().filter(|a| a.2 == End::GateOnly) {
        assert!(gate::check(sql).is_err(), "{name}: {sql} passes the gate, and {end:?}");
    }
}
