//! What each provider sends, and how it takes each answer. A kind of token is a row in the file of its vendor.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod assertions;
mod configuration;
mod configuration_environment;
mod dingtalk;
mod end_to_end;
mod feishu;
mod general;
mod kinds;
mod microsoft;
mod oauth2;
mod wechat;
mod wecom;
