//! What each provider sends, and how it takes each answer. A kind of token is a row in the file of its vendor.
#![allow(clippy::unwrap_used)]

#[path = "providers/assertions.rs"]
mod assertions;
mod common;
#[path = "providers/dingtalk.rs"]
mod dingtalk;
#[path = "providers/feishu.rs"]
mod feishu;
#[path = "providers/general.rs"]
mod general;
#[path = "providers/kinds.rs"]
mod kinds;
#[path = "providers/microsoft.rs"]
mod microsoft;
#[path = "providers/oauth2.rs"]
mod oauth2;
#[path = "providers/wechat.rs"]
mod wechat;
#[path = "providers/wecom.rs"]
mod wecom;
