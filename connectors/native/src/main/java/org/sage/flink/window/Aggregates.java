package org.sage.flink.window;

import java.io.IOException;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.wire.PackedVector;
import org.sage.flink.wire.VectorField;

/**
 * The aggregates of a window step, by name, as {@code sage_flink/flow/stateful/aggregates.py} writes
 * them: a JSON array of objects with {@code name}, {@code kind}, {@code field} and the parameters of
 * the kind. In windows that do not end with time, {@code span} is first, without a name.
 */
final class Aggregates implements Serializable {

    private static final long serialVersionUID = 1L;

    private static final Set<String> OF_NUMBERS =
            Set.of("sum", "mean", "min", "max", "stddev", "quantile", "approximate_quantile");

    /** One aggregate; a parameter that its kind has not is 0 or empty. */
    record Aggregate(
            String name,
            String kind,
            String field,
            String value,
            double q,
            int top,
            int itemsMax,
            double[] query)
            implements Serializable {

        boolean isOfNumbers() {
            return OF_NUMBERS.contains(kind);
        }

        boolean isOfVectors() {
            return kind.equals("nearest");
        }

        Accumulator accumulator() {
            return switch (kind) {
                case "count" -> new CountAccumulator(field.isEmpty());
                case "sum", "mean" -> new SumAccumulator(kind.equals("mean"));
                case "min", "max" -> new ExtremeAccumulator(kind.equals("min"));
                case "stddev" -> new StddevAccumulator();
                case "first", "last" -> new EdgeAccumulator(kind.equals("first"));
                case "quantile", "approximate_quantile" ->
                        new QuantileAccumulator(q, kind.equals("approximate_quantile"));
                case "count_distinct", "top" -> new OccurrenceAccumulator(top);
                case "approximate_count_distinct" -> new DistinctSketchAccumulator();
                case "approximate_top" -> new TopSketchAccumulator(top);
                case "span" -> new SpanAccumulator();
                case "collect" -> new CollectAccumulator(itemsMax);
                case "nearest" -> new NearestAccumulator(PackedVector.unit(query), top);
                default -> throw new IllegalArgumentException("there is no aggregate " + kind);
            };
        }
    }

    private final String json;
    private final List<Aggregate> all;
    private final int[] valuesAt;

    private Aggregates(String json, List<Aggregate> all) {
        this.json = json;
        this.all = all;
        this.valuesAt = new int[all.size()];
        int at = all.size();
        for (int i = 0; i < valuesAt.length; i++) {
            valuesAt[i] = all.get(i).isOfVectors() ? at++ : i;
        }
    }

    static Aggregates of(String json) {
        List<Aggregate> all = new ArrayList<>();
        try {
            for (JsonNode node : new ObjectMapper().readTree(json)) {
                all.add(
                        new Aggregate(
                                node.path("name").asText(),
                                node.path("kind").asText(),
                                node.path("field").asText(""),
                                node.path("value").asText(""),
                                node.path("q").asDouble(0),
                                node.path("k").asInt(0),
                                node.path("items_max").asInt(0),
                                numbers(node.path("query"))));
            }
        } catch (IOException e) {
            throw new IllegalArgumentException("the aggregates are not JSON: " + json, e);
        }
        return new Aggregates(json, all);
    }

    private static double[] numbers(JsonNode node) {
        double[] numbers = new double[node.size()];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = node.get(i).asDouble();
        }
        return numbers;
    }

    List<Aggregate> all() {
        return all;
    }

    /** The paths of the fields, one for each aggregate, and then of second fields. */
    List<String> fields() {
        Stream<String> second = all.stream().filter(Aggregate::isOfVectors).map(Aggregate::value);
        return Stream.concat(all.stream().map(Aggregate::field), second).toList();
    }

    /** Where in {@link #fields} the second field of this aggregate is; where it has none, its own. */
    int valueAt(int aggregate) {
        return valuesAt[aggregate];
    }

    /** The fields whose values must be vectors. */
    List<VectorField> vectors() {
        return all.stream()
                .filter(Aggregate::isOfVectors)
                .map(one -> new VectorField(one.field, one.query.length, false))
                .toList();
    }

    /** The paths whose values must be numbers. */
    List<String> numbers() {
        return all.stream().filter(Aggregate::isOfNumbers).map(Aggregate::field).distinct().toList();
    }

    Accumulator[] accumulators() {
        return all.stream().map(Aggregate::accumulator).toArray(Accumulator[]::new);
    }

    @Override
    public String toString() {
        return json;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Aggregates && json.equals(((Aggregates) other).json);
    }

    @Override
    public int hashCode() {
        return json.hashCode();
    }
}
