//! Agents side by side while their configuration is reloaded again and again under load: what is lost,
//! what comes twice, and for how long nothing comes.
//!
//! [`peers`] knows how each is configured and told to reload, [`judge`] what arrives, [`run`] does it, and
//! [`stand_in`] is an agent that loses and repeats on purpose, by which the judge is judged.

pub mod judge;
pub mod peers;
pub mod run;
pub mod stand_in;
