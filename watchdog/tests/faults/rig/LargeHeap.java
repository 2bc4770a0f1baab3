import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooKeeper;

/**
 * A ZooKeeper session beside a large heap: {@code LargeHeap HOSTS TIMEOUT_MS OBJECTS}.
 * Out: {@code @ MONO_US WORD ID} a line; in: a line starts a full collection, again and again.
 */
public final class LargeHeap {
    private static final class Node {
        Node next;
        long number;
    }

    private static volatile ZooKeeper client;
    private static Node[] heads;

    public static void main(String[] arguments) throws Exception {
        int objects = Integer.parseInt(arguments[2]);
        // Chains that are built in turns: neighbours in a chain lie far apart in memory.
        heads = new Node[4096];
        for (int index = 0; index < objects; index++) {
            Node node = new Node();
            int chain = (int) (index * 2654435761L >>> 8 & 4095);
            node.next = heads[chain];
            node.number = index;
            heads[chain] = node;
        }
        say("built");
        client = new ZooKeeper(arguments[0], Integer.parseInt(arguments[1]), LargeHeap::changed);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        if (commands.readLine() != null) {
            say("begin");
            for (int round = 0; round < 3; round++) {
                System.gc();
            }
            say("end");
        }
        while (commands.readLine() != null) {
            // Until the other end is gone.
        }
    }

    private static void changed(WatchedEvent event) {
        switch (event.getState()) {
            case SyncConnected -> say("connected");
            case Disconnected -> say("disconnected");
            case Expired -> say("expired");
            default -> { }
        }
    }

    private static void say(String word) {
        ZooKeeper known = client;
        for (int tries = 0; known == null && word.equals("connected") && tries < 100_000_000; tries++) {
            Thread.onSpinWait();
            known = client;
        }
        long id = known == null ? 0 : known.getSessionId();
        System.out.println("@ " + System.nanoTime() / 1000 + " " + word + " 0x" + Long.toHexString(id));
        System.out.flush();
    }
}
