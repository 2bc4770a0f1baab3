import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooKeeper;

/**
 * A ZooKeeper session held by the Java client: {@code JavaClient HOSTS TIMEOUT_MS idle|busy}.
 * Out: {@code @ MONO_US STATE ID} a line; in: {@code close} ends the session in order.
 */
public final class JavaClient {
    private static volatile ZooKeeper client;

    public static void main(String[] arguments) throws Exception {
        client = new ZooKeeper(arguments[0], Integer.parseInt(arguments[1]), JavaClient::changed);
        if (arguments[2].equals("busy")) {
            Thread reader = new Thread(JavaClient::readInALoop, "reader");
            reader.setDaemon(true);
            reader.start();
        }
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null && !line.equals("close"); ) {
            // Only `close` has a meaning.
        }
        client.close();
        say("closed");
        System.exit(0);
    }

    private static void changed(WatchedEvent event) {
        switch (event.getState()) {
            case SyncConnected -> say("connected");
            case Disconnected -> say("disconnected");
            case Expired -> say("expired");
            default -> { }
        }
    }

    /** The first event may come before the constructor has returned. */
    private static synchronized void say(String state) {
        while (client == null) {
            Thread.onSpinWait();
        }
        System.out.println(
                "@ " + System.nanoTime() / 1000 + " " + state + " 0x" + Long.toHexString(client.getSessionId()));
    }

    private static void readInALoop() {
        while (true) {
            try {
                client.getData("/", false, null);
            } catch (KeeperException lost) {
                // The connection is down: it comes back, or the session expires.
            } catch (InterruptedException end) {
                return;
            }
            try {
                Thread.sleep(20);
            } catch (InterruptedException end) {
                return;
            }
        }
    }
}
