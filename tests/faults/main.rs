//! The fault matrix: what users really meet, against the release binary as a process.
//!
//! A file per row, or per few rows; the number is in its name. Each test does the fault, asserts
//! what must never happen and records what it reached (see [`tailwater_tests::fault_row`]). `cargo
//! xtask faults` makes docs/FAULTS.md of the records. What this machine cannot show (no root, no
//! loop device) is said aloud and recorded as such.

mod attack;
mod by_hand;
mod disk;

mod row_01_kill;
mod row_02_power_loss;
mod row_02_state_damage;
mod row_03_outage;
mod row_04_flapping;
mod row_05_storm;
mod row_06_bad_lines;
mod row_07_hidden_refusals;
mod row_08_bad_answers;
mod row_09_slow_beside_fast;
mod row_10_full_state;
mod row_11_remount;
mod row_12_rotation;
mod row_12_rotation_storm;
mod row_13_inode_reuse;
mod row_14_regrown;
mod row_15_many_files;
mod row_16_fast_growth;
mod row_17_strange_bytes;
mod row_18_long_lines;
mod row_19_clock;
mod row_20_stop;
mod row_21_reload;
mod row_22_bad_config;
mod row_23_control_plane;
mod row_24_few_descriptors;
mod row_25_read_errors;
mod row_26_strange_files;
mod row_27_memory;
mod row_28_stalls;
mod row_29_names;
mod row_30_certificates;
mod row_31_floods;
mod row_32_bombs;
mod row_33_slow;
mod row_34_kill_after_ok;
mod row_35_kubernetes;
mod row_36_versions;
