# To-do lists as processes of one BEAM: a registry, three workers that write files, a list server for each list, a cache.
#
#   elixir todo_system.exs WORKLOAD FOLDER SPAN LISTS IN_FLIGHT
#
# prints lines of a name and a number. SPAN is in milliseconds; for read_alone, a thousand for each request.
# As in the design that it follows, an add is a cast, a store is a cast, a whole list is written for each change, and
# nothing is synced.

defmodule Bench.Registry do
  use GenServer

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  def register_name(name, pid), do: GenServer.call(__MODULE__, {:register, name, pid})
  def unregister_name(name), do: GenServer.call(__MODULE__, {:unregister, name})
  def whereis_name(name), do: GenServer.call(__MODULE__, {:whereis, name})

  def send(name, message) do
    with pid when is_pid(pid) <- whereis_name(name), do: Kernel.send(pid, message)
  end

  @impl true
  def init(_), do: {:ok, %{}}

  @impl true
  def handle_call({:register, name, _}, _, names) when is_map_key(names, name), do: {:reply, :no, names}

  def handle_call({:register, name, pid}, _, names) do
    Process.monitor(pid)
    {:reply, :yes, Map.put(names, name, pid)}
  end

  def handle_call({:unregister, name}, _, names), do: {:reply, :ok, Map.delete(names, name)}
  def handle_call({:whereis, name}, _, names), do: {:reply, Map.get(names, name, :undefined), names}

  @impl true
  def handle_info({:DOWN, _, :process, pid, _}, names) do
    {:noreply, names |> Enum.reject(fn {_, known} -> known == pid end) |> Map.new()}
  end
end

defmodule Bench.Worker do
  use GenServer

  def start_link(folder, number), do: GenServer.start_link(__MODULE__, folder, name: via(number))
  def store(number, key, value), do: GenServer.cast(via(number), {:store, key, value})
  def get(number, key), do: GenServer.call(via(number), {:get, key}, :infinity)
  def sync(number), do: GenServer.call(via(number), :sync, :infinity)

  defp via(number), do: {:via, Bench.Registry, {:database_worker, number}}

  @impl true
  def init(folder) do
    File.mkdir_p!(folder)
    {:ok, folder}
  end

  @impl true
  def handle_cast({:store, key, value}, folder) do
    File.write!(Path.join(folder, key), :erlang.term_to_binary(value))
    {:noreply, folder}
  end

  @impl true
  def handle_call({:get, key}, _, folder) do
    value =
      case File.read(Path.join(folder, key)) do
        {:ok, bytes} -> :erlang.binary_to_term(bytes)
        _ -> nil
      end

    {:reply, value, folder}
  end

  def handle_call(:sync, _, folder), do: {:reply, :ok, folder}
end

defmodule Bench.Database do
  @workers 3

  def start(folder), do: for(number <- 0..(@workers - 1), do: Bench.Worker.start_link(folder, number))
  def store(key, value), do: Bench.Worker.store(:erlang.phash2(key, @workers), key, value)
  def get(key), do: Bench.Worker.get(:erlang.phash2(key, @workers), key)
  def sync, do: for(number <- 0..(@workers - 1), do: Bench.Worker.sync(number))
end

defmodule Bench.ListServer do
  use GenServer

  def start_link(name), do: GenServer.start_link(__MODULE__, name)
  def add_entry(server, entry), do: GenServer.cast(server, {:add, entry})
  def entries(server, date), do: GenServer.call(server, {:entries, date}, :infinity)
  def sync(server), do: GenServer.call(server, :sync, :infinity)

  @impl true
  def init(name), do: {:ok, {name, Bench.Database.get(name) || %{next_id: 1, entries: %{}}}}

  @impl true
  def handle_cast({:add, entry}, {name, list}) do
    id = list.next_id
    list = %{next_id: id + 1, entries: Map.put(list.entries, id, Map.put(entry, :id, id))}
    Bench.Database.store(name, list)
    {:noreply, {name, list}}
  end

  @impl true
  def handle_call({:entries, date}, _, {_, list} = state) do
    {:reply, for({_, entry} <- list.entries, entry.date == date, do: entry), state}
  end

  def handle_call(:sync, _, state), do: {:reply, :ok, state}
end

defmodule Bench.Cache do
  use GenServer

  def start_link, do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)
  def server_process(name), do: GenServer.call(__MODULE__, {:server_process, name}, :infinity)

  @impl true
  def init(_), do: {:ok, %{}}

  @impl true
  def handle_call({:server_process, name}, _, servers) do
    case servers do
      %{^name => server} ->
        {:reply, server, servers}

      _ ->
        {:ok, server} = Bench.ListServer.start_link(name)
        {:reply, server, Map.put(servers, name, server)}
    end
  end
end

defmodule Bench.Loads do
  @entry %{title: "dentist", date: {2026, 12, 1}}

  def run("adds", span_ms, lists, in_flight) do
    names = names(lists)
    for_a_while(span_ms, fn -> add(names, in_flight) end)
  end

  def run("reads", span_ms, lists, in_flight) do
    names = names(lists)
    add(names, lists)
    share = div(in_flight, 100)

    # A hundred readers, each asking one list after another: a reader that waits costs the BEAM nothing.
    for_a_while(span_ms, fn ->
      names
      |> Enum.take(in_flight)
      |> Enum.chunk_every(share)
      |> Enum.map(fn part -> Task.async(fn -> Enum.each(part, &read/1) end) end)
      |> Task.await_many(:infinity)

      in_flight
    end)
  end

  def run("read_alone", span_ms, lists, _) do
    names = names(lists)
    add(names, lists)
    waits = for name <- Stream.take(Stream.cycle(names), div(span_ms, 1000)), do: elem(:timer.tc(fn -> read(name) end), 0)
    sorted = Enum.sort(waits)
    [p50_ms: Enum.at(sorted, div(length(sorted), 2)) / 1000, p99_ms: Enum.at(sorted, div(length(sorted) * 99, 100)) / 1000]
  end

  def run("create", _, lists, _) do
    names = names(lists)
    before = :erlang.memory(:processes)
    {microseconds, _} = :timer.tc(fn -> Enum.each(names, &Bench.Cache.server_process/1) end)
    [seconds: microseconds / 1.0e6, bytes: :erlang.memory(:processes) - before]
  end

  # One list until it has `entries` entries or the time is up; what counts is the last tenth.
  def run("long", span_ms, entries, in_flight) do
    steps = div(entries, in_flight)
    stop = now_us() + span_ms * 1000

    times =
      Enum.reduce_while(1..steps, [], fn _, times ->
        {microseconds, _} = :timer.tc(fn -> add(["long"], in_flight) end)
        if now_us() > stop, do: {:halt, [microseconds | times]}, else: {:cont, [microseconds | times]}
      end)

    last = Enum.take(times, max(1, div(length(times), 10)))
    [requests: length(last) * in_flight, seconds: Enum.sum(last) / 1.0e6, entries: length(times) * in_flight]
  end

  defp names(lists), do: for(number <- 1..lists, do: "list #{number}")

  defp read(name), do: [_ | _] = Bench.ListServer.entries(Bench.Cache.server_process(name), @entry.date)

  # Casts so many adds over the lists, then waits until the last file is written.
  defp add(names, count) do
    names
    |> Stream.cycle()
    |> Enum.take(count)
    |> Enum.each(fn name -> Bench.ListServer.add_entry(Bench.Cache.server_process(name), @entry) end)

    for name <- Enum.take(names, count), do: Bench.ListServer.sync(Bench.Cache.server_process(name))
    Bench.Database.sync()
    count
  end

  defp for_a_while(span_ms, exchange) do
    exchange.()
    began = now_us()
    requests = repeat(exchange, began + span_ms * 1000, 0)
    [requests: requests, seconds: (now_us() - began) / 1.0e6]
  end

  defp repeat(exchange, stop, requests) do
    requests = requests + exchange.()
    if now_us() < stop, do: repeat(exchange, stop, requests), else: requests
  end

  defp now_us, do: :erlang.monotonic_time(:microsecond)
end

[workload, folder, span_ms, lists, in_flight] = System.argv()
{:ok, _} = Bench.Registry.start_link()
Bench.Database.start(folder)
{:ok, _} = Bench.Cache.start_link()

workload
|> Bench.Loads.run(String.to_integer(span_ms), String.to_integer(lists), String.to_integer(in_flight))
|> Enum.each(fn {name, number} -> IO.puts("#{name} #{number}") end)
