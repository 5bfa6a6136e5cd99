//! Providers: the requests they send, how they read each reply, their configuration, and each kind from end to end. A
//! kind of token is a row in the file of its vendor.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod assertions;
mod claims_challenges;
mod configuration;
#[allow(clippy::print_stdout)]
mod configuration_environment;
mod dingtalk;
mod end_to_end;
mod feishu;
mod general;
mod kinds;
mod microsoft;
mod oauth2;
mod settings;
mod sign_in;
mod wechat;
mod wecom;
