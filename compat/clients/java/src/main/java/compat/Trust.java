package compat;

import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;

/** What the process trusts. */
final class Trust {
    /**
     * Makes this process trust the authority whose certificate is in a PEM file, and no other. It must
     * come before the first use of TLS: the SDK takes the platform's default, which is made once.
     */
    static void authority(String file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        char[] password = "changeit".toCharArray(); // the format wants one; a certificate is no secret
        store.load(null, password);
        try (InputStream in = Files.newInputStream(Path.of(file))) {
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        Path path = Files.createTempFile("authority-", ".p12");
        path.toFile().deleteOnExit();
        try (OutputStream out = Files.newOutputStream(path)) {
            store.store(out, password);
        }
        System.setProperty("javax.net.ssl.trustStore", path.toString());
        System.setProperty("javax.net.ssl.trustStoreType", "PKCS12");
        System.setProperty("javax.net.ssl.trustStorePassword", new String(password));
    }

    private Trust() {
    }
}
