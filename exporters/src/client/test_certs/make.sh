#!/bin/sh
# Makes the certificates of the tests: two authorities, a server of each for localhost and
# 127.0.0.1, two clients of the first. The keys protect nothing. Valid from 2024 to 2124; those of
# the first authority that are called expired, to 2025.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > ca.cnf <<'CONF'
[ca]
default_ca = test
[test]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[serverAuth]
subjectAltName = DNS:localhost,DNS:other.test,IP:127.0.0.1
extendedKeyUsage = serverAuth
[clientAuth]
subjectAltName = DNS:client.test
extendedKeyUsage = clientAuth
CONF
: > index
echo 01 > serial
end=21240101000000Z
make() { # name, extensions, how to sign
  name=$1 extensions=$2
  shift 2
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=test $name" \
    -keyout "$name.key" -out "$name.csr"
  openssl ca -batch -config ca.cnf -notext -extensions "$extensions" "$@" \
    -startdate 20240101000000Z -enddate $end -in "$name.csr" -out "$name.pem"
}
for n in 1 2; do
  make "ca$n" authority -selfsign -keyfile "ca$n.key"
  make "server$n" serverAuth -cert "ca$n.pem" -keyfile "ca$n.key"
done
make client1 clientAuth -cert ca1.pem -keyfile ca1.key
make client2 clientAuth -cert ca1.pem -keyfile ca1.key
end=20250101000000Z
make server_expired serverAuth -cert ca1.pem -keyfile ca1.key
make client_expired clientAuth -cert ca1.pem -keyfile ca1.key
rm ca1.key ca2.key
cp ca?.pem server*.pem server*.key client*.pem client*.key "$here"
chmod 644 "$here"/*.key
