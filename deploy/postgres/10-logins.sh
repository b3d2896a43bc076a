#!/bin/sh
# Runs once, in a new data folder, by the entry point of the PostgreSQL image.
# Three logins: the owner migrates and ingests, the API can only read, the registry has its own
# database. The roles that read are found, not made, by the migrations.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set owner_password="$VIEWKEEPER_OWNER_PASSWORD" \
    --set api_password="$VIEWKEEPER_API_PASSWORD" \
    --set registry_password="$REGISTRY_PASSWORD" <<'SQL'
CREATE ROLE viewkeeper LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE viewkeeper_reader NOLOGIN;
CREATE ROLE viewkeeper_customer NOLOGIN;
GRANT viewkeeper_reader, viewkeeper_customer TO viewkeeper WITH ADMIN OPTION;
CREATE ROLE viewkeeper_api LOGIN PASSWORD :'api_password' IN ROLE viewkeeper_reader;
CREATE DATABASE viewkeeper OWNER viewkeeper;

CREATE ROLE registry LOGIN PASSWORD :'registry_password';
CREATE DATABASE registry OWNER registry;
REVOKE CONNECT ON DATABASE viewkeeper, registry FROM PUBLIC;
GRANT CONNECT ON DATABASE viewkeeper TO viewkeeper_reader;
SQL
