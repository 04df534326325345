//! The output `kafka`.

use std::sync::Arc;

use opa_core::config::{ConfigError, Field, Reader, Warning};
use rskafka::client::partition::Compression;

use super::super::Way;
use super::super::kafka::Clusters;
use super::super::kafka::config::{
    DEFAULT_MAX_REQUEST_BYTES, Sasl, Settings, Target, read_brokers, read_sasl, read_topic,
};
use super::super::tls_files::TlsFiles;
use super::Opened;
use super::batching::{self, Gathering};

pub(super) fn open(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    clusters: &Clusters,
    warnings: &mut Vec<Warning>,
) -> Result<Opened, ConfigError> {
    let (settings, gathering) = read(reader, warnings)?;
    let producer = clusters.producer(settings);
    let producer = producer.map_err(|problem| field.error(format!("tls: {problem}")))?;
    Ok(Opened {
        way: Way::Output(Arc::new(producer)),
        gathering,
        max_retry: None,
    })
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(Settings, Gathering), ConfigError> {
    let tls = reader.object("tls")?;
    let tls = tls.map(|tls| TlsFiles::read(tls, warnings)).transpose()?;
    let gathering = Gathering::read(reader, warnings)?;
    let settings = Settings {
        target: Target {
            brokers: read_brokers(reader, "urls", tls.is_some())?,
            tls,
            sasl: read_one_sasl(reader, warnings)?,
        },
        topic: read_topic(reader)?,
        form: gathering.form,
        compression: Compression::NoCompression,
        timeout: batching::timeout(reader, warnings)?,
        max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
    };
    Ok((settings, gathering))
}

/// A list of one, or one without a list.
fn read_one_sasl(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Sasl>, ConfigError> {
    let Some(field) = reader.field("sasl") else {
        return Ok(None);
    };
    let all: Vec<_> = match field.items() {
        Ok(items) => items.collect(),
        Err(_) => vec![field],
    };
    let mut chosen = None;
    for item in all {
        let read = read_sasl(&item, warnings)?;
        if chosen.is_some() && read.is_some() {
            return Err(item.error("more than one SASL mechanism is not supported by this version"));
        }
        chosen = chosen.or(read);
    }
    Ok(chosen)
}
