import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.OutputStream;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.core.StandardService;
import org.apache.catalina.startup.Tomcat;
import org.apache.coyote.http2.Http2Protocol;

/** Embedded Tomcat with its graceful stop, which a shutdown hook calls. */
public final class Main {
    private static final long DRAIN_MS = 5000;

    public static void main(String[] arguments) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[0]);
        Connector connector = new Connector();
        connector.setProperty("address", "127.0.0.1");
        connector.setPort(Integer.parseInt(System.getenv("PORT")));
        // Only such connectors are waited for: the documentation of gracefulStopAwaitMillis.
        connector.setProperty("bindOnInit", "false");
        connector.addUpgradeProtocol(new Http2Protocol());
        tomcat.setConnector(connector);
        ((StandardService) tomcat.getService()).setGracefulStopAwaitMillis(DRAIN_MS);
        var context = tomcat.addContext("", null);
        Tomcat.addServlet(context, "routes", new Routes());
        context.addServletMappingDecoded("/", "routes");
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                tomcat.stop();
                tomcat.destroy();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        tomcat.start();
        if (!connector.getState().isAvailable()) {
            System.exit(1);
        }
        tomcat.getServer().await();
    }

    private static final class Routes extends HttpServlet {
        @Override
        protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
            OutputStream out = response.getOutputStream();
            switch (request.getMethod() + " " + request.getServletPath()) {
                case "GET /" -> out.write("hello world".getBytes());
                case "GET /slow" -> {
                    sleep(number(request, "ms"));
                    out.write("slow".getBytes());
                }
                case "POST /echo" -> out.write(request.getInputStream().readAllBytes());
                case "GET /stream" -> {
                    for (long left = number(request, "ms"); left > 0; left -= 50) {
                        sleep(50);
                        out.write("piece\n".getBytes());
                        response.flushBuffer();
                    }
                }
                case "GET /big" -> {
                    long left = number(request, "bytes");
                    response.setContentLengthLong(left);
                    byte[] chunk = new byte[64 * 1024];
                    for (; left > 0; left -= chunk.length) {
                        out.write(chunk, 0, (int) Math.min(left, chunk.length));
                    }
                }
                default -> response.sendError(404);
            }
        }

        private static long number(HttpServletRequest request, String name) {
            String value = request.getParameter(name);
            return value == null ? 0 : Long.parseLong(value);
        }

        private static void sleep(long ms) throws IOException {
            try {
                Thread.sleep(ms);
            } catch (InterruptedException error) {
                throw new IOException(error);
            }
        }
    }
}
